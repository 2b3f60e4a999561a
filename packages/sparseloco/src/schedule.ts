/** The learning-rate schedule of a run, as its RunConfig gives it. */
export type LearningRateSchedule = {
  peakLearningRate: number;
  warmupSteps: number;
  /** Share of the peak at the last step. */
  finalLearningRateRatio: number;
  /** Inner steps of the whole run: rounds x H. */
  totalSteps: number;
};

/**
 * Learning rate of a global inner step (0-based): linear warm-up to the peak, then linear decay to the final ratio at
 * the last step. It depends on the step only, so a peer that joins late trains at the rate of the others.
 */
export function learningRateAt(schedule: LearningRateSchedule, step: number): number {
  const { peakLearningRate, warmupSteps, finalLearningRateRatio, totalSteps } = schedule;
  if (step < warmupSteps) return (peakLearningRate * (step + 1)) / warmupSteps;
  const decaySteps = totalSteps - 1 - warmupSteps;
  if (decaySteps <= 0) return peakLearningRate;
  const done = Math.min(1, (step - warmupSteps) / decaySteps);
  return peakLearningRate * (1 - (1 - finalLearningRateRatio) * done);
}

/** Learning rates of the H inner steps of one round. */
export function learningRatesOfRound(
  schedule: LearningRateSchedule,
  round: number,
  innerSteps: number,
): number[] {
  return Array.from({ length: innerSteps }, (_, step) =>
    learningRateAt(schedule, round * innerSteps + step),
  );
}
