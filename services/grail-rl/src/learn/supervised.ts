// Supervised tuning on worked examples, mixed with text that the model itself wrote before.
import { sha256 } from "@covenant/contracts";
import {
  type Environment,
  evaluationSeed,
  layoutRows,
  samplingSeed,
  type TokenRow,
  trainSeed,
} from "@covenant/grail";
import type { Batch, Model } from "@covenant/kernels";
import {
  type LearningRateSchedule,
  learningRateAt,
  meanLoss,
  type Tokenizer,
} from "@covenant/models";
import { exampleRow } from "./prompts.ts";

/** Settings of supervised tuning. */
export interface SupervisedSettings {
  /** Examples in a batch. */
  batchExamples: number;
  /** Every so many steps one step is on replayed text; 0 for none. */
  replayEverySteps: number;
  /** Sequences of replayed text and their length. */
  replaySequences: number;
  replayTokens: number;
  learningRate: number;
  warmupSteps: number;
  maximumSteps: number;
}

const optimizer = {
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.01,
  gradientClip: 1,
};
const stride = 0x9e37_79b9_7f4a_7c15n;
const heldOutExamples = 128;

/**
 * Text sampled from the model before tuning. Training on a little of it keeps the model from
 * forgetting what it was pre-trained on, without the data it was pre-trained on.
 */
export async function sampleReplay(
  model: Pick<Model, "generate">,
  tokenizer: Tokenizer,
  settings: SupervisedSettings,
  runKey: string,
): Promise<TokenRow[]> {
  const beacon = sha256(new TextEncoder().encode(`covenant.replay.v1 ${runKey}`));
  const prompt = Int32Array.of(tokenizer.eosId);
  const requests = Array.from({ length: settings.replaySequences }, (_, rolloutIndex) => ({
    prompt,
    maxNewTokens: settings.replayTokens,
    temperature: 1,
    topK: 0,
    topP: 1,
    stopTokens: [],
    samplingSeed: samplingSeed({
      beacon,
      checkpointRoot: new Uint8Array(32),
      promptTokens: prompt,
      rolloutIndex,
    }),
  }));
  const completions = await model.generate(requests, {});
  return completions.map(({ tokens }) => ({ tokens: [...prompt, ...tokens], scoredFrom: 1 }));
}

/** The batch of a step: the same for everybody who has the tokenizer and the replayed text. */
export function supervisedBatch(
  step: number,
  settings: SupervisedSettings,
  source: { tokenizer: Tokenizer; environment: Environment; replay: readonly TokenRow[] },
): Batch {
  const { tokenizer, environment, replay } = source;
  const isReplay =
    replay.length > 0 &&
    settings.replayEverySteps > 0 &&
    step % settings.replayEverySteps === settings.replayEverySteps - 1;
  if (isReplay) {
    const turn = Math.floor(step / settings.replayEverySteps);
    const count = Math.min(8, replay.length);
    const rows = Array.from(
      { length: count },
      (_, i) => replay[(turn * count + i) % replay.length]!,
    );
    return layoutRows(rows, tokenizer.eosId);
  }
  const first = BigInt(step) * BigInt(settings.batchExamples);
  const rows = Array.from({ length: settings.batchExamples }, (_, i) =>
    exampleRow(tokenizer, environment, trainSeed((first + BigInt(i) + 1n) * stride)),
  );
  return layoutRows(rows, tokenizer.eosId);
}

/** One step of tuning; returns its loss in nats per scored token. */
export async function supervisedStep(
  model: Pick<Model, "trainStep">,
  step: number,
  batch: Batch,
  settings: SupervisedSettings,
): Promise<number> {
  const schedule: LearningRateSchedule = {
    peakLearningRate: settings.learningRate,
    warmupSteps: settings.warmupSteps,
    totalSteps: settings.maximumSteps,
    finalLearningRateRatio: 1,
    decay: "none",
  };
  const learningRate = learningRateAt(schedule, step);
  const { loss } = await model.trainStep(batch, { ...optimizer, learningRate });
  return loss;
}

/** Loss on worked examples of held-out episodes, in nats per scored token. */
export async function heldOutLoss(
  model: Pick<Model, "forward">,
  tokenizer: Tokenizer,
  environment: Environment,
): Promise<number> {
  const rows = Array.from({ length: heldOutExamples }, (_, i) =>
    exampleRow(tokenizer, environment, evaluationSeed(BigInt(i + 1) * stride)),
  );
  return meanLoss(model, [layoutRows(rows, tokenizer.eosId)]);
}
