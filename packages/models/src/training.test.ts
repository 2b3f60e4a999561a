import assert from "node:assert/strict";
import { test } from "node:test";
import type { Batch } from "@covenant/kernels";
import { type LearningRateSchedule, learningRateAt } from "./schedule.ts";
import { bitsPerByte, meanLoss, runInnerSteps } from "./training.ts";

const schedule: LearningRateSchedule = {
  peakLearningRate: 1,
  warmupSteps: 4,
  totalSteps: 10,
  finalLearningRateRatio: 0.1,
  decay: "linear",
};
const rates = (changes: Partial<LearningRateSchedule>): number[] =>
  Array.from({ length: 12 }, (_, step) => learningRateAt({ ...schedule, ...changes }, step));

test("schedules rise to the peak and fall to the final share at the last step", () => {
  const linear = [0.25, 0.5, 0.75, 1, 1, 0.82, 0.64, 0.46, 0.28, 0.1, 0.1, 0.1];
  rates({}).forEach((rate, step) => {
    assert.ok(Math.abs(rate - linear[step]!) < 1e-12, `step ${step}: ${rate}`);
  });
  const cosine = rates({ decay: "cosine" });
  assert.equal(cosine[4], 1);
  assert.ok(Math.abs(cosine[9]! - 0.1) < 1e-12);
  assert.ok(cosine[5]! > 0.82 && cosine[8]! < 0.28);
  assert.deepEqual(rates({ decay: "none", warmupSteps: 0 }), new Array(12).fill(1));
  assert.equal(learningRateAt({ ...schedule, totalSteps: 4 }, 5), 0.1);
});

const batch = (targets: number[], sequences = 1): Batch => ({
  tokens: new Int32Array(targets.length),
  targets: Int32Array.from(targets),
  sequences,
  sequenceLength: targets.length / sequences,
});
const optimizer = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, gradientClip: 1 };

test("inner steps follow the schedule from where they begin and weigh losses by tokens", async () => {
  const seen: number[] = [];
  const losses = [4, 2];
  const result = await runInnerSteps(
    {
      trainStep: async (_, { learningRate }) => {
        seen.push(learningRate);
        return { loss: losses[seen.length - 1]!, gradientNorm: 1 };
      },
    },
    { batches: [batch([1, 1, 1]), batch([1, -1, -1])], optimizer, schedule, firstStep: 1 },
  );
  assert.deepEqual(seen, [0.5, 0.75]);
  assert.deepEqual(result, { steps: 2, tokens: 4, meanLoss: 3.5, lastLoss: 2 });
});

test("inner steps stop between steps when aborted, and on a loss that is not finite", async () => {
  const controller = new AbortController();
  let steps = 0;
  const model = { trainStep: async () => ({ loss: 1, gradientNorm: 1 }) };
  const batches = [batch([1]), batch([1]), batch([1])];
  const onStep = (): void => {
    steps += 1;
    controller.abort(new Error("enough"));
  };
  const options = { batches, optimizer, schedule };
  const run = runInnerSteps(model, { ...options, onStep, signal: controller.signal });
  await assert.rejects(run, /enough/);
  assert.equal(steps, 1);
  const broken = { trainStep: async () => ({ loss: Number.NaN, gradientNorm: 1 }) };
  await assert.rejects(runInnerSteps(broken, options), /Loss at step 0/);
});

test("mean loss counts scored positions only", async () => {
  const model = {
    forward: async () => ({
      logProbs: Float32Array.of(-1, Number.NaN, -2, -6),
      entropy: new Float32Array(4),
    }),
  };
  assert.equal(await meanLoss(model, [batch([5, -1, 5, 5], 2)]), 3);
  assert.ok(Number.isNaN(await meanLoss(model, [])));
  assert.equal(bitsPerByte(Math.LN2 * 4, 2), 2);
});
