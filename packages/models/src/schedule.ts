// Learning-rate schedules as data: linear warm-up, then decay to a share of the peak.

/** A schedule over the steps 0 to totalSteps - 1 of a run. */
export interface LearningRateSchedule {
  peakLearningRate: number;
  /** Steps of linear rise; the peak is reached at the last of them. */
  warmupSteps: number;
  totalSteps: number;
  /** Learning rate at the last step, as a share of the peak. */
  finalLearningRateRatio: number;
  decay: "linear" | "cosine" | "none";
}

/** Learning rate of a step; past the end it stays at its final value. */
export function learningRateAt(schedule: LearningRateSchedule, step: number): number {
  const { peakLearningRate, warmupSteps, totalSteps, finalLearningRateRatio, decay } = schedule;
  if (step < warmupSteps) return (peakLearningRate * (step + 1)) / warmupSteps;
  if (decay === "none") return peakLearningRate;
  const decaySteps = totalSteps - 1 - warmupSteps;
  const progress = decaySteps <= 0 ? 1 : Math.min(1, (step - warmupSteps) / decaySteps);
  const remaining = decay === "linear" ? 1 - progress : (1 + Math.cos(Math.PI * progress)) / 2;
  return peakLearningRate * (finalLearningRateRatio + (1 - finalLearningRateRatio) * remaining);
}
