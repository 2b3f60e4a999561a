// One GRPO step: from verified groups to new weights.
import {
  type AdvantageRule,
  groupAdvantages,
  layoutRows,
  policyTerms,
  type RowBatch,
  rowValues,
  setRowValues,
  tokenWeight,
} from "@covenant/grail";
import type { Model } from "@covenant/kernels";

/** A verified group, ready to be learned from. */
export interface TrainingGroup {
  promptTokens: readonly number[];
  /** Tokens of each completion, the stop token included. */
  completions: readonly (readonly number[])[];
  /** As the verifier computed them. */
  rewards: readonly number[];
}

/** Settings of the policy objective and its optimiser. */
export interface PolicySettings {
  rule: AdvantageRule;
  clipLow: number;
  clipHigh: number;
  klCoefficient: number;
  learningRate: number;
  /** Versions over which the learning rate rises to its full value. */
  warmupVersions: number;
  finalLearningRateRatio: number;
  /** Versions in all: what the learning rate's decline is spread over. */
  versions: number;
  /** Passes over the groups of a version. */
  epochs: number;
  /** Completions of one optimiser step. */
  batchCompletions: number;
  maxNewTokens: number;
}

/** What a step did. */
export interface PolicyStepReport {
  /** Mean over optimiser steps. */
  loss: number;
  /** Mean k3 per token against the reference, before the step's last update. */
  kl: number;
  /** Mean entropy per token before the step, nats. */
  entropy: number;
  /** Share of tokens without gradient because of the clip, over all passes. */
  clipShare: number;
  completions: number;
  tokens: number;
}

interface Sample {
  row: { tokens: readonly number[]; scoredFrom: number };
  advantage: number;
  sampledLogProbs: Float32Array;
  referenceLogProbs: Float32Array;
}

const optimizer = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, gradientClip: 1 };
const forwardRows = 128;

/**
 * Trains on the groups of policy version `step.version`. The log-probabilities under which a completion was
 * sampled are computed here from the weights as they are, never taken from a worker. Groups without
 * variance must have been left out. Order of groups and passes is fixed: equal inputs, equal weights.
 */
export async function trainPolicy(
  model: Pick<Model, "forward" | "backward" | "optimizerStep">,
  reference: Pick<Model, "forward">,
  groups: readonly TrainingGroup[],
  settings: PolicySettings,
  step: { version: number; padToken: number },
): Promise<PolicyStepReport> {
  const { padToken } = step;
  const learningRate = policyLearningRate(settings, step.version);
  const { samples, entropy } = await prepare(model, reference, groups, settings.rule, padToken);
  const totals = { loss: 0, klSum: 0, clipped: 0, tokens: 0, steps: 0, lastTokens: 0 };
  for (let epoch = 0; epoch < settings.epochs; epoch++) {
    const order = shuffledFrom(samples, epoch);
    for (let at = 0; at < order.length; at += settings.batchCompletions) {
      const part = order.slice(at, at + settings.batchCompletions);
      const update = await policyUpdate(model, part, { ...settings, learningRate }, padToken);
      totals.loss += update.loss;
      totals.clipped += update.clipped;
      totals.tokens += update.tokens;
      totals.steps++;
      if (epoch === settings.epochs - 1) {
        totals.klSum += update.klSum;
        totals.lastTokens += update.tokens;
      }
    }
  }
  return {
    loss: totals.loss / Math.max(1, totals.steps),
    kl: totals.klSum / Math.max(1, totals.lastTokens),
    entropy,
    clipShare: totals.clipped / Math.max(1, totals.tokens),
    completions: samples.length,
    tokens: totals.lastTokens,
  };
}

/**
 * Learning rate of the step that makes version `version + 1`; it falls linearly to its final share.
 * The first versions take less: while AdamW's moments know few gradients, its steps have full length
 * whatever the gradient says, and a whole rate would undo what supervised tuning taught.
 */
export function policyLearningRate(
  settings: Pick<
    PolicySettings,
    "learningRate" | "finalLearningRateRatio" | "versions" | "warmupVersions"
  >,
  version: number,
): number {
  const warm = Math.min(1, (version + 1) / Math.max(1, settings.warmupVersions));
  const progress = Math.min(1, version / Math.max(1, settings.versions - 1));
  return warm * settings.learningRate * (1 - progress * (1 - settings.finalLearningRateRatio));
}

/** Spreads the completions of each group over the batches, differently in every pass. */
function shuffledFrom<T>(items: readonly T[], epoch: number): T[] {
  const stepSize = coprimeStep(items.length, 2 * epoch + 5);
  return items.map((_, i) => items[(i * stepSize + epoch) % items.length]!);
}

function coprimeStep(count: number, from: number): number {
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  let candidate = from;
  while (gcd(candidate, Math.max(1, count)) !== 1) candidate++;
  return candidate;
}

async function prepare(
  model: Pick<Model, "forward">,
  reference: Pick<Model, "forward">,
  groups: readonly TrainingGroup[],
  rule: AdvantageRule,
  padToken: number,
): Promise<{ samples: Sample[]; entropy: number }> {
  const samples: Sample[] = groups.flatMap((group) => {
    const advantages = groupAdvantages(group.rewards, rule);
    return group.completions.map((completion, i) => ({
      row: {
        tokens: [...group.promptTokens, ...completion],
        scoredFrom: group.promptTokens.length,
      },
      advantage: advantages[i]!,
      sampledLogProbs: new Float32Array(),
      referenceLogProbs: new Float32Array(),
    }));
  });
  let entropySum = 0;
  let tokens = 0;
  for (let at = 0; at < samples.length; at += forwardRows) {
    const part = samples.slice(at, at + forwardRows);
    const batch = layoutRows(
      part.map((sample) => sample.row),
      padToken,
    );
    const now = await model.forward(batch);
    const then = await reference.forward(batch);
    part.forEach((sample, row) => {
      sample.sampledLogProbs = rowValues(batch, row, now.logProbs);
      sample.referenceLogProbs = rowValues(batch, row, then.logProbs);
      entropySum += rowValues(batch, row, now.entropy).reduce((sum, value) => sum + value, 0);
    });
    tokens += batch.scoredTokens;
  }
  return { samples, entropy: entropySum / Math.max(1, tokens) };
}

async function policyUpdate(
  model: Pick<Model, "forward" | "backward" | "optimizerStep">,
  samples: readonly Sample[],
  settings: PolicySettings,
  padToken: number,
) {
  const batch: RowBatch = layoutRows(
    samples.map((sample) => sample.row),
    padToken,
  );
  const { logProbs } = await model.forward(batch, { keepActivations: true });
  const coefficients = new Float32Array(batch.tokens.length);
  let loss = 0;
  let klSum = 0;
  let clipped = 0;
  samples.forEach((sample, row) => {
    const terms = policyTerms(
      {
        logProbs: rowValues(batch, row, logProbs),
        sampledLogProbs: sample.sampledLogProbs,
        referenceLogProbs: sample.referenceLogProbs,
        advantage: sample.advantage,
        weight: tokenWeight(settings.rule, {
          completions: samples.length,
          tokens: sample.sampledLogProbs.length,
          maxNewTokens: settings.maxNewTokens,
        }),
      },
      settings,
    );
    setRowValues(batch, row, terms.coefficients, coefficients);
    loss += terms.loss;
    klSum += terms.klSum;
    clipped += terms.clippedTokens;
  });
  await model.backward(coefficients);
  await model.optimizerStep({ ...optimizer, learningRate: settings.learningRate });
  return { loss, klSum, clipped, tokens: batch.scoredTokens };
}
