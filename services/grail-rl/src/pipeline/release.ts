// Measures the policy before and after reinforcement, and releases the last version.
import { CheckpointStage } from "@covenant/contracts/registry";
import type { TrainableModel } from "@covenant/kernels";
import { evaluate } from "../learn/evaluate.ts";
import { loadWeights } from "../state/weights-file.ts";
import { environmentOf, jobFile, loadTokenizer, type PhaseContext } from "./context.ts";
import { publish } from "./publish.ts";

/** Held-out episodes and draws of the comparison: the same before and after. */
const comparisonSeed = 7n;

async function withPolicy<T>(
  context: PhaseContext,
  use: (model: TrainableModel, reward: number) => Promise<T>,
): Promise<T> {
  const { job, options, signal } = context;
  const { tokenizer } = await loadTokenizer(context);
  const { model } = await loadWeights(
    jobFile(context, `policy-${job.policyVersion}.bin`),
    options,
    context.modules,
  );
  try {
    const result = await evaluate(model, tokenizer, environmentOf(options.environment), {
      prompts: options.policy.evaluationPrompts,
      seed: comparisonSeed,
      heldOut: true,
      temperature: 1,
      maxNewTokens: options.policy.maxNewTokens,
      signal,
    });
    return await use(model, result.meanReward);
  } finally {
    model.close();
  }
}

/** Mean reward of policy version 0 on held-out prompts. */
export async function evaluateBefore(context: PhaseContext): Promise<void> {
  const rewardBefore = await withPolicy(context, async (_, reward) => reward);
  context.modules.logger.info({ rewardBefore }, "policy evaluated");
  await context.update({ rewardBefore, phase: "grpo" });
}

/** Mean reward of the last version on the same prompts; uploads it as the release. */
export async function release(context: PhaseContext): Promise<void> {
  const { job } = context;
  await withPolicy(context, async (model, rewardAfter) => {
    const releaseRoot = await publish(context, model, {
      stage: CheckpointStage.RELEASE,
      version: job.policyVersion,
      parentRoot: job.policyRoot,
      evaluation: {
        reward_before: job.rewardBefore,
        reward_after: rewardAfter,
        sft_loss_before: job.supervisedLossBefore,
        sft_loss_after: job.supervisedLossAfter,
      },
    });
    context.modules.logger.info({ rewardAfter, releaseRoot }, "policy released");
    await context.update({ rewardAfter, releaseRoot, phase: "finished" });
  });
}
