import assert from "node:assert/strict";
import { type TestFn, test } from "node:test";
import { KernelError } from "./errors.ts";
import { emulateDevices } from "./testing.ts";
import type { TrainableModel } from "./trainable-model.ts";
import type { Batch, GenerateRequest, ModelShape, OptimizerOptions } from "./types.ts";

/** A model small enough for a test to train in milliseconds. */
export const tinyShape: ModelShape = {
  vocabSize: 64,
  hiddenSize: 32,
  intermediateSize: 64,
  layerCount: 2,
  headCount: 4,
  kvHeadCount: 2,
  maxPositions: 64,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};

/** The optimizer of the tests. */
export const adamw: OptimizerOptions = {
  learningRate: 3e-3,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.1,
  gradientClip: 1,
};

/** Two sequences of 32 tokens that follow a rule. */
export function tinyBatch(): Batch {
  return {
    tokens: Int32Array.from({ length: 64 }, (_, i) => (i * 7) % 64),
    targets: Int32Array.from({ length: 64 }, (_, i) => ((i + 1) * 7) % 64),
    sequences: 2,
    sequenceLength: 32,
  };
}

/** A request for as many tokens as fit. */
export function tinyRequest(overrides: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    prompt: Int32Array.of(1, 2, 3),
    maxNewTokens: 60,
    temperature: 1,
    topK: 0,
    topP: 1,
    stopTokens: [],
    samplingSeed: new Uint8Array(32).fill(7),
    ...overrides,
  };
}

/** Values around zero with heavy tails, by a small fixed generator. */
export function noise(count: number, scale: number, seed: number): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const u = (state + 0.5) / 2 ** 32 - 0.5;
    return Math.sign(u) * -Math.log(1 - 2 * Math.abs(u)) * scale;
  });
}

/** For assert.rejects and assert.throws. */
export const isKernelError = (code: string) => (error: unknown) =>
  error instanceof KernelError && error.code === code;

/**
 * `test` of a file whose tests take so many CUDA devices: emulated ones where there is no GPU. To be called before CUDA
 * is first used; where there is no emulated library either, the tests are skipped and say what to run.
 */
export function deviceTests(count: number): (name: string, body: TestFn) => void {
  const skip = emulateDevices(count) ?? false;
  return (name, body) => void test(name, { skip }, body);
}

/** Closes a model, twice, with calls under way: each ends one way or another, and all later ones are refused. */
export async function closeWhileBusy(model: TrainableModel): Promise<void> {
  const closed = isKernelError("COV_KERNELS_CLOSED");
  const jobs = Array.from({ length: 5 }, () => model.generate([tinyRequest()]));
  model.close();
  model.close();
  const outcomes = await Promise.allSettled(jobs);
  for (const outcome of outcomes) {
    if (outcome.status === "fulfilled") continue;
    assert.ok(["COV_KERNELS_CLOSED", "COV_KERNELS_CANCELLED"].includes(outcome.reason.code));
  }
  assert.equal(outcomes.at(-1)?.status, "rejected");
  await assert.rejects(model.generate([tinyRequest()]), closed);
  await assert.rejects(model.trainStep(tinyBatch(), adamw), closed);
  await assert.rejects(model.read("parameters"), closed);
  assert.throws(() => {
    model.optimizerStepCount = 3;
  }, closed);
}
