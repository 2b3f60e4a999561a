// Mean reward of a model on an environment's episodes, the same episodes and draws every time.
import { sha256 } from "@covenant/contracts";
import { type Environment, evaluationSeed, samplingSeed, trainSeed } from "@covenant/grail";
import type { Model } from "@covenant/kernels";
import { stopTokens, type Tokenizer } from "@covenant/models";
import { promptTokens, rewardOf } from "./prompts.ts";

/** Which episodes and how to sample. */
export interface EvaluationOptions {
  prompts: number;
  /** Chooses the series of episodes and draws; equal seeds compare like with like. */
  seed: bigint;
  /** Held-out episodes are never trained on; training episodes serve as a probe while tuning. */
  heldOut: boolean;
  temperature: number;
  maxNewTokens: number;
  signal?: AbortSignal;
}

/** Outcome of an evaluation. */
export interface EvaluationResult {
  meanReward: number;
  /** Of the mean, over prompts. */
  standardError: number;
  prompts: number;
  /** Mean tokens of a completion. */
  meanLength: number;
}

/** Spreads consecutive indices over all seeds. */
const stride = 0x9e37_79b9_7f4a_7c15n;

/**
 * Samples one completion for each prompt and grades it. Draws are bound to the prompt and the seed,
 * not to the weights, so two models answer with the same luck.
 */
export async function evaluate(
  model: Pick<Model, "generate">,
  tokenizer: Tokenizer,
  environment: Environment,
  options: EvaluationOptions,
): Promise<EvaluationResult> {
  const side = options.heldOut ? evaluationSeed : trainSeed;
  const seeds = Array.from({ length: options.prompts }, (_, i) =>
    side((options.seed + BigInt(i) + 1n) * stride),
  );
  const beacon = sha256(new TextEncoder().encode(`covenant.evaluation.v1 ${options.seed}`));
  const requests = seeds.map((seed, rolloutIndex) => {
    const prompt = promptTokens(tokenizer, environment, seed);
    return {
      prompt,
      maxNewTokens: options.maxNewTokens,
      temperature: options.temperature,
      topK: 0,
      topP: 1,
      stopTokens: stopTokens(tokenizer),
      samplingSeed: samplingSeed({
        beacon,
        checkpointRoot: new Uint8Array(32),
        promptTokens: prompt,
        rolloutIndex,
      }),
    };
  });
  const { signal } = options;
  const completions = await model.generate(requests, signal === undefined ? {} : { signal });
  const rewards = completions.map((completion, i) =>
    rewardOf(tokenizer, environment, seeds[i]!, completion.tokens),
  );
  const meanReward = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
  const variance =
    rewards.reduce((sum, reward) => sum + (reward - meanReward) ** 2, 0) /
    Math.max(1, rewards.length - 1);
  const tokens = completions.reduce((sum, completion) => sum + completion.tokens.length, 0);
  return {
    meanReward,
    standardError: Math.sqrt(variance / rewards.length),
    prompts: rewards.length,
    meanLength: tokens / completions.length,
  };
}
