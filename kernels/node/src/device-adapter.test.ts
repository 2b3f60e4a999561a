// Adapters of models on CUDA devices. Where there is no GPU the emulated library computes, with the same code.
import assert from "node:assert/strict";
import {
  type Adapter,
  type AdapterOptions,
  DeviceModel,
  type DeviceModelOptions,
  initialParameters,
  KernelError,
  Model,
  type TrainableModel,
} from "./index.ts";
import {
  adamw,
  deviceTests,
  isKernelError,
  tinyBatch,
  tinyRequest,
  tinyShape,
} from "./test-support.ts";

const test = deviceTests(2);
/** Larger than usual, so that what is tested is far from uniform. */
const lively = initialParameters(tinyShape, 7n).map((value) => (value === 1 ? 1 : value * 10));
const options: AdapterOptions = { rank: 3, alpha: 6, targets: ["q", "v", "down"], seed: 5n };

async function withModel(
  body: (model: DeviceModel) => Promise<void>,
  where: DeviceModelOptions = {},
) {
  const model = await DeviceModel.create(tinyShape, { parameters: lively, ...where });
  try {
    await body(model);
  } finally {
    model.close();
  }
}

/** Everything that adapters hold. */
async function stateOf(adapter: Adapter) {
  const { optimizerStepCount } = adapter;
  const buffers = ["parameters", "gradients", "firstMoment", "secondMoment"] as const;
  return [optimizerStepCount, ...(await Promise.all(buffers.map((name) => adapter.read(name))))];
}

/** Trains, generates, merges and unmerges; returns all there is to see of it. */
async function life(model: TrainableModel) {
  const adapter = await model.createAdapter(options);
  const other = await model.createAdapter({ ...options, rank: 2, seed: 6n });
  const steps = [];
  for (let step = 0; step < 3; step++) {
    steps.push(await adapter.trainStep(tinyBatch(), adamw));
    steps.push(await other.trainStep(tinyBatch(), adamw));
  }
  await adapter.forward(tinyBatch(), { keepActivations: true });
  await adapter.backward(new Float32Array(64).fill(-1 / 64));
  const gradients = await adapter.read("gradients");
  assert.ok(gradients.some((value) => value !== 0));
  const { gradientNorm } = await adapter.optimizerStep(adamw);
  const states = [await stateOf(adapter), await stateOf(other)];
  const request = tinyRequest({ maxNewTokens: 8 });
  const adapted = await adapter.generate([request]);
  const generator = await adapter.createGenerator();
  assert.deepEqual([await generator.generate(request)], adapted);
  await generator.close();
  assert.deepEqual(await model.read("parameters"), lively);
  await adapter.merge({ reversible: true });
  assert.deepEqual(await model.generate([request]), adapted);
  const merged = await model.read("parameters");
  await adapter.unmerge();
  assert.deepEqual(await model.read("parameters"), lively);
  await Promise.all([adapter.release(), other.release()]);
  return { steps, gradients, gradientNorm, states, adapted, merged };
}

test("adapters have the bits of the CPU, from the first step to unmerging", async () => {
  const cpu = await Model.create(tinyShape, { parameters: lively, threads: 1 });
  const expected = await life(cpu);
  cpu.close();
  const places: DeviceModelOptions[] = [{}, { devices: [1, 0], layout: "layer-split" }];
  for (const where of places) {
    await withModel(async (model) => assert.deepEqual(await life(model), expected), where);
  }
});

test("replicas train adapters together", () =>
  withModel(
    async (model) => {
      const adapter = await model.createAdapter(options);
      const losses: number[] = [];
      for (let step = 0; step < 10; step++) {
        losses.push((await adapter.trainStep(tinyBatch(), adamw)).loss);
      }
      assert.ok(losses.at(-1)! < losses[0]! - 0.1);
      assert.deepEqual(await model.read("parameters"), lively);
      await adapter.release();
    },
    { devices: [0, 1] },
  ));

test("a saved adapter goes on with the same bits", () =>
  withModel(async (model) => {
    const first = await model.createAdapter(options);
    await first.trainStep(tinyBatch(), adamw);
    const second = await model.createAdapter({ ...options, seed: 99n });
    for (const buffer of ["parameters", "firstMoment", "secondMoment"] as const) {
      await second.write(buffer, await first.read(buffer));
    }
    second.optimizerStepCount = first.optimizerStepCount;
    await first.trainStep(tinyBatch(), adamw);
    await second.trainStep(tinyBatch(), adamw);
    assert.deepEqual(await stateOf(second), await stateOf(first));
  }));

test("memory of adapters counts towards the model's, and goes when they are released", () =>
  withModel(async (model) => {
    await model.forward(tinyBatch());
    const before = model.memory.bytes;
    const adapter = await model.createAdapter(options);
    await adapter.trainStep(tinyBatch(), adamw);
    const length = (await adapter.read("parameters")).byteLength;
    assert.ok(adapter.memory.bytes >= 4 * length);
    assert.ok(model.memory.bytes >= before + adapter.memory.bytes);
    const held = model.memory.bytes;
    await adapter.release();
    assert.equal(adapter.memory.bytes, 0);
    assert.ok(model.memory.bytes <= held - 4 * length);
    await assert.rejects(
      adapter.trainStep(tinyBatch(), adamw),
      isKernelError("COV_KERNELS_CLOSED"),
    );
    assert.ok((await model.forward(tinyBatch())).entropy.length > 0);
  }));

test("what adapters on devices cannot do is a typed error", () =>
  withModel(async (model) => {
    const adapter = await model.createAdapter(options);
    const unsupported = isKernelError("COV_KERNELS_UNSUPPORTED");
    assert.throws(() => adapter.parameters, unsupported);
    const precondition = isKernelError("COV_KERNELS_FAILED_PRECONDITION");
    await assert.rejects(adapter.unmerge(), precondition);
    await assert.rejects(model.createAdapter({ rank: 0, alpha: 1 }), KernelError);
    await assert.rejects(
      adapter.read("parameters", { offset: 2 ** 40, count: 0 }),
      isKernelError("COV_KERNELS_OUT_OF_RANGE"),
    );
  }));

test("a model may be closed before its adapters are released", async () => {
  for (const where of [{}, { devices: [0, 1] }]) {
    const model = await DeviceModel.create(tinyShape, { parameters: lively, ...where });
    const adapter = await model.createAdapter(options);
    const jobs = Array.from({ length: 4 }, () => adapter.trainStep(tinyBatch(), adamw));
    model.close();
    const outcomes = await Promise.allSettled(jobs);
    assert.equal(outcomes.at(-1)?.status, "rejected");
    await adapter.release();
    await assert.rejects(adapter.read("parameters"), isKernelError("COV_KERNELS_CLOSED"));
  }
});
