import { compress } from "@covenant/kernels";
import { codecMode, learningRateSchedule, learningRatesOfRound } from "@covenant/sparseloco";
import type { Behaviour, RoundWork } from "./behaviour.ts";

/** Trains on the assigned samples and compresses the pseudo-gradient with error feedback. */
export const honest: Behaviour = {
  name: "honest",
  async produceBody(work) {
    await trainInnerSteps(work);
    const trained = await work.model.read("parameters");
    return compressChange(work, work.theta, trained, work.errorFeedback);
  },
};

/** Runs the H inner AdamW steps of the round on the model. */
async function trainInnerSteps(work: RoundWork): Promise<void> {
  const { setup, model, samples, source, round } = work;
  const inner = setup.run.inner!;
  const rates = learningRatesOfRound(learningRateSchedule(setup.run), round, inner.steps);
  const { beta1, beta2, epsilon, weightDecay, gradientClip } = inner;
  for (const [step, learningRate] of rates.entries()) {
    await work.beforeStep();
    work.signal.throwIfAborted();
    const first = step * inner.batchSize;
    const batch = source.batch(samples.subarray(first, first + inner.batchSize));
    const startMs = work.clock.nowMs();
    const optimizer = { learningRate, beta1, beta2, epsilon, weightDecay, gradientClip };
    const { loss } = await model.trainStep(batch, optimizer);
    const elapsedMs = Math.max(1, work.clock.nowMs() - startMs);
    const tokensPerSecond = (batch.sequences * batch.sequenceLength * 1000) / elapsedMs;
    work.onStep({ innerStep: step + 1, loss, tokensPerSecond });
  }
}

/** Compresses base - current with the run's codec; the error feedback is changed in place. */
export function compressChange(
  work: RoundWork,
  base: Float32Array,
  current: Float32Array,
  errorFeedback: Float32Array,
): Promise<Uint8Array> {
  const outer = work.setup.run.outer!;
  return compress({
    base,
    current,
    errorFeedback,
    tensors: work.setup.tensors,
    errorDecay: outer.errorDecay,
    keepPerChunk: outer.keepPerChunk,
    mode: codecMode(outer.codec),
  });
}
