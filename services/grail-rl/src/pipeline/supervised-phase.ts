// Supervised tuning as a phase: saved at every probe, taken up again from there.
import { existsSync } from "node:fs";
import { CheckpointStage } from "@covenant/contracts/registry";
import type { TokenRow } from "@covenant/grail";
import type { TrainableModel } from "@covenant/kernels";
import type { Tokenizer } from "@covenant/models";
import { evaluate } from "../learn/evaluate.ts";
import { heldOutLoss, sampleReplay, supervisedBatch, supervisedStep } from "../learn/supervised.ts";
import { loadWeights, saveWeights } from "../state/weights-file.ts";
import { environmentOf, jobFile, loadTokenizer, type PhaseContext } from "./context.ts";
import { publish } from "./publish.ts";

const probeSeed = 1n;

/** The model before tuning, and the text it writes. */
async function begin(context: PhaseContext, tokenizer: Tokenizer) {
  const { job, options } = context;
  const { model } = await loadWeights(jobFile(context, "source.bin"), options, context.modules);
  const replay = await sampleReplay(model, tokenizer, options.supervised, job.jobId);
  const saved = jobFile(context, "supervised.bin");
  if (!existsSync(saved)) {
    const environment = environmentOf(options.environment);
    const supervisedLossBefore = await heldOutLoss(model, tokenizer, environment);
    await context.update({ supervisedLossBefore, supervisedSteps: 0 });
    return { model, replay, steps: 0 };
  }
  model.close();
  const { model: resumed, progress } = await loadWeights(saved, options, context.modules);
  return { model: resumed, replay, steps: progress };
}

/** Tunes until the probe is good enough or the steps are used up; returns the steps done. */
async function tune(
  context: PhaseContext,
  model: TrainableModel,
  source: { tokenizer: Tokenizer; replay: readonly TokenRow[] },
  firstStep: number,
): Promise<number> {
  const { options, signal, modules } = context;
  const { supervised, policy } = options;
  const environment = environmentOf(options.environment);
  let step = firstStep;
  let loss = context.job.loss;
  while (step < supervised.maximumSteps) {
    signal.throwIfAborted();
    const batch = supervisedBatch(step, supervised, { ...source, environment });
    loss = await supervisedStep(model, step, batch, supervised);
    step++;
    if (step % supervised.probeEverySteps !== 0) continue;
    const probe = await evaluate(model, source.tokenizer, environment, {
      prompts: supervised.probePrompts,
      seed: probeSeed,
      heldOut: false,
      temperature: 1,
      maxNewTokens: policy.maxNewTokens,
      signal,
    });
    await saveWeights(jobFile(context, "supervised.bin"), model, step);
    await context.update({ supervisedSteps: step, loss });
    modules.logger.info({ step, loss, probeReward: probe.meanReward }, "supervised tuning");
    if (probe.meanReward >= supervised.targetReward) break;
  }
  return step;
}

/** Tunes the received checkpoint, keeps the result as policy version 0, and uploads it. */
export async function runSupervised(context: PhaseContext): Promise<void> {
  const { job, options } = context;
  const { tokenizer } = await loadTokenizer(context);
  const { model, replay, steps } = await begin(context, tokenizer);
  try {
    const supervisedSteps = await tune(context, model, { tokenizer, replay }, steps);
    const environment = environmentOf(options.environment);
    const supervisedLossAfter = await heldOutLoss(model, tokenizer, environment);
    // Reinforcement starts with fresh moments: those of tuning point elsewhere.
    await model.clear("firstMoment");
    await model.clear("secondMoment");
    model.optimizerStepCount = 0;
    await saveWeights(jobFile(context, "policy-0.bin"), model, 0);
    const policyRoot = await publish(context, model, {
      stage: CheckpointStage.SFT,
      version: 0,
      parentRoot: job.sourceRoot,
      evaluation: { sft_loss: supervisedLossAfter },
    });
    await context.update({
      supervisedSteps,
      supervisedLossAfter,
      policyVersion: 0,
      policyRoot,
      phase: "evaluating",
    });
  } finally {
    model.close();
  }
}
