// Training and scoring sessions on the kernels' Model: the loops, without any policy of when to run them.
import type { Batch, Model } from "@covenant/kernels";
import { type LearningRateSchedule, learningRateAt } from "./schedule.ts";

/** AdamW settings without the learning rate, which the schedule gives. */
export type OptimizerSettings = Omit<Parameters<Model["trainStep"]>[1], "learningRate">;

/** What one step did. */
export interface StepReport {
  /** Step of the schedule. */
  step: number;
  /** Mean negative log-likelihood over the scored positions before the step, nats. */
  loss: number;
  gradientNorm: number;
  learningRate: number;
  /** Scored positions. */
  tokens: number;
}

/** Options of {@link runInnerSteps}. */
export interface InnerStepsOptions {
  batches: Iterable<Batch> | AsyncIterable<Batch>;
  optimizer: OptimizerSettings;
  schedule: LearningRateSchedule;
  /** Step of the schedule at the first batch; 0 when absent. */
  firstStep?: number;
  onStep?: (report: StepReport) => void;
  /** Looked at between steps; a step in flight is finished. */
  signal?: AbortSignal;
}

/** What a series of steps did. */
export interface InnerStepsResult {
  steps: number;
  tokens: number;
  /** Mean of the steps' losses, each weighted by its tokens; NaN without steps. */
  meanLoss: number;
  lastLoss: number;
}

/** One optimiser step per batch. Throws `signal.reason` when aborted, and on a loss that is not finite. */
export async function runInnerSteps(
  model: Pick<Model, "trainStep">,
  options: InnerStepsOptions,
): Promise<InnerStepsResult> {
  const firstStep = options.firstStep ?? 0;
  let steps = 0;
  let tokens = 0;
  let lossSum = 0;
  let lastLoss = Number.NaN;
  for await (const batch of options.batches) {
    options.signal?.throwIfAborted();
    const step = firstStep + steps;
    const learningRate = learningRateAt(options.schedule, step);
    const result = await model.trainStep(batch, { ...options.optimizer, learningRate });
    if (!Number.isFinite(result.loss)) throw new Error(`Loss at step ${step} is ${result.loss}`);
    const scored = scoredPositions(batch);
    steps += 1;
    tokens += scored;
    lossSum += result.loss * scored;
    lastLoss = result.loss;
    options.onStep?.({ step, ...result, learningRate, tokens: scored });
  }
  return { steps, tokens, meanLoss: lossSum / tokens, lastLoss };
}

/** Number of positions of a batch that have a target. */
export function scoredPositions(batch: Batch): number {
  let count = 0;
  for (const target of batch.targets) if (target >= 0) count += 1;
  return count;
}

/** Mean negative log-likelihood over all scored positions of the batches, nats per token; NaN without any. */
export async function meanLoss(
  model: Pick<Model, "forward">,
  batches: Iterable<Batch> | AsyncIterable<Batch>,
): Promise<number> {
  let sum = 0;
  let count = 0;
  for await (const batch of batches) {
    for (const row of await sequenceLosses(model, batch)) {
      sum += row.lossSum;
      count += row.tokens;
    }
  }
  return sum / count;
}

/** Loss of each sequence of a batch, for paired comparisons. Summed in float64 in position order. */
export async function sequenceLosses(
  model: Pick<Model, "forward">,
  batch: Batch,
): Promise<{ lossSum: number; tokens: number }[]> {
  const { logProbs } = await model.forward(batch);
  const width = batch.sequenceLength;
  return Array.from({ length: batch.sequences }, (_, row) => {
    let lossSum = 0;
    let tokens = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      if (batch.targets[i]! < 0) continue;
      lossSum -= logProbs[i]!;
      tokens += 1;
    }
    return { lossSum, tokens };
  });
}

/** Bits per byte of a loss in nats per token: comparable between tokenizers. */
export function bitsPerByte(lossNatsPerToken: number, bytesPerToken: number): number {
  return lossNatsPerToken / Math.LN2 / bytesPerToken;
}
