// What a caller can get wrong, function by function, and what a process can do at a bad time: each is a typed error or a
// clean end, never a crash.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import {
  aggregate,
  applyDelta,
  applyMerged,
  applyUpdate,
  compress,
  decode,
  decodeActivations,
  encodeActivations,
  encodeDelta,
  initialParameters,
  KernelError,
  Model,
  type ModelOptions,
  sparseSize,
  stateRoot,
  tensorTable,
} from "./index.ts";
import { adamw, tinyBatch, tinyRequest, tinyShape } from "./test-support.ts";
import { emulateDevices } from "./testing.ts";

const invalid = (error: unknown) =>
  error instanceof KernelError &&
  error.code === "COV_KERNELS_INVALID_ARGUMENT" &&
  /^[^\n]{10,240}$/.test(error.message);
const typed = (error: unknown) => error instanceof KernelError;

const tensors = tensorTable(tinyShape);
const parameters = initialParameters(tinyShape, 7n);
const count = parameters.length;
const format = { keepPerChunk: 64, mode: "2bit" } as const;

const detached = (): Float32Array<ArrayBuffer> => {
  const values = new Float32Array(count);
  structuredClone(values, { transfer: [values.buffer] });
  return values;
};
const shared = () => new Float32Array(new SharedArrayBuffer(count * 4)) as Float32Array;
const resizable = () =>
  new Float32Array(new ArrayBuffer(count * 4, { maxByteLength: count * 8 })) as Float32Array;
/** What is no Float32Array to hand in. */
const wrongFloats: readonly (() => unknown)[] = [
  detached,
  shared,
  resizable,
  () => new Float64Array(count),
  () => new Uint8Array(count * 4),
  () => Array.from({ length: count }, () => 0),
  () => null,
  () => "values",
  () => new DataView(new ArrayBuffer(count * 4)),
];

async function withModel(body: (model: Model) => Promise<void>, options: ModelOptions = {}) {
  const model = await Model.create(tinyShape, { parameters, threads: 1, ...options });
  try {
    await body(model);
  } finally {
    model.close();
  }
}

test("arrays of a wrong type, shared, resizable or transferred away are refused everywhere", () =>
  withModel(async (model) => {
    const body = new Uint8Array(sparseSize(tensors, format).bodyBytes);
    const own = () => new Float32Array(count);
    for (const make of wrongFloats) {
      const wrong = () => make() as Float32Array;
      const calls: (() => Promise<unknown>)[] = [
        () => model.backward(wrong()),
        () => model.write("parameters", wrong()),
        () => stateRoot(wrong(), tensors),
        () => applyMerged(wrong(), body, tensors, 1),
        () => applyUpdate(wrong(), body, tensors, 1, format),
        () => encodeActivations(wrong(), { codec: "int8", rows: 1, width: count }),
        () =>
          compress({
            base: own(),
            current: own(),
            errorFeedback: wrong(),
            tensors,
            errorDecay: 0.9,
            ...format,
          }),
        () =>
          aggregate({
            updates: [body],
            weights: wrong(),
            tensors,
            rule: "all",
            clipToMedianNorm: false,
            ...format,
          }),
      ];
      if (make() !== null) calls.push(() => Model.create(tinyShape, { parameters: wrong() }));
      for (const [i, call] of calls.entries()) {
        await assert.rejects(call(), invalid, `call ${i} with ${String(make)}`);
      }
    }
    const bytes = new Uint8Array(new SharedArrayBuffer(64)) as Uint8Array;
    await assert.rejects(encodeDelta(bytes, bytes), invalid);
    await assert.rejects(encodeDelta(new Uint8Array(3), new Uint8Array(3)), invalid);
    await assert.rejects(applyDelta(bytes, bytes), typed);
    await assert.rejects(decode(bytes, tensors, format), invalid);
    const activations = { codec: "int8", rows: 1, width: 1 } as const;
    await assert.rejects(decodeActivations(bytes, activations), typed);
    const floats = new Float32Array(64) as unknown as Int32Array;
    await assert.rejects(model.forward({ ...tinyBatch(), tokens: floats }), invalid);
    await assert.rejects(model.trainStep({ ...tinyBatch(), targets: floats }, adamw), invalid);
    const prompt = floats.subarray(0, 3);
    await assert.rejects(model.generate([tinyRequest({ prompt })]), invalid);
  }));

test("numbers that are NaN, negative, huge or no numbers are refused everywhere", () =>
  withModel(async (model) => {
    const wrongNumbers = [Number.NaN, -1, 1.5, 2 ** 53, "3", null, {}, undefined] as number[];
    for (const wrong of wrongNumbers) {
      const calls: (() => Promise<unknown>)[] = [
        () => model.forward({ ...tinyBatch(), sequences: wrong }),
        () => model.forward({ ...tinyBatch(), sequenceLength: wrong }),
        () => model.trainStep({ ...tinyBatch(), sequences: wrong }, adamw),
        () => model.trainStep(tinyBatch(), { ...adamw, beta1: wrong }),
        () => model.optimizerStep({ ...adamw, gradientClip: wrong === 1.5 ? Number.NaN : wrong }),
        () => model.generate([tinyRequest({ maxNewTokens: wrong })]),
        () => model.generate([tinyRequest({ topK: wrong })]),
        () => model.generate([tinyRequest({ topP: wrong })]),
        () => Model.create({ ...tinyShape, vocabSize: wrong }),
        () => Model.create({ ...tinyShape, layerCount: wrong }),
        () => encodeActivations(new Float32Array(4), { codec: "int8", rows: wrong, width: 4 }),
        async () => sparseSize(tensors, { ...format, keepPerChunk: wrong }),
        async () => tensorTable({ ...tinyShape, hiddenSize: wrong }),
      ];
      for (const [i, call] of calls.entries()) {
        // A clip of 2^53 is a clip.
        if (i === 4 && wrong === 2 ** 53) continue;
        await assert.rejects(call(), typed, `call ${i} with ${String(wrong)}`);
      }
      if (wrong === undefined || wrong === null) continue;
      const one = new Float32Array(1);
      await assert.rejects(model.write("gradients", one, { offset: wrong }), typed, String(wrong));
      await assert.rejects(model.read("gradients", { offset: wrong }), typed, String(wrong));
      await assert.rejects(model.read("gradients", { count: wrong }), typed, String(wrong));
      await assert.rejects(Model.create(tinyShape, { threads: wrong }), typed, String(wrong));
      if (wrong !== 2 ** 53) {
        await assert.rejects(model.createGenerator({ maxBatch: wrong }), typed, String(wrong));
        await assert.rejects(model.createGenerator({ stepRows: wrong }), typed, String(wrong));
      }
    }
    for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY, "1" as unknown as number]) {
      await assert.rejects(model.generate([tinyRequest({ temperature: wrong })]), typed);
      await assert.rejects(model.trainStep(tinyBatch(), { ...adamw, learningRate: wrong }), typed);
      await assert.rejects(model.forward(tinyBatch(), { temperature: wrong }), typed);
      await assert.rejects(Model.create(tinyShape, { memoryLimitBytes: wrong }), typed);
      const own = new Float32Array(count);
      const compressing = { base: own, current: own, errorFeedback: own, tensors, ...format };
      await assert.rejects(compress({ ...compressing, errorDecay: wrong }), typed);
    }
    assert.throws(() => {
      model.optimizerStepCount = 0.5;
    }, typed);
    // After all of that the model works.
    assert.ok((await model.trainStep(tinyBatch(), adamw)).loss > 0);
  }));

test("tensor tables that lie are refused", async () => {
  const [first] = tensors;
  const own = new Float32Array(count);
  for (const wrong of [
    "tensors",
    [null],
    [{ ...first, offset: -1 }],
    [{ ...first, length: 2 ** 60 }],
    [{ ...first, shape: [2 ** 40, 2 ** 40] }],
    [{ ...first, shape: [] }],
    [{ ...first, name: "" }],
    [{ ...first, name: "x".repeat(5000) }],
    [{ ...first, offset: 2 ** 50 }],
  ] as unknown as (typeof tensors)[]) {
    await assert.rejects(stateRoot(own, wrong), typed);
    await assert.rejects(applyMerged(own, new Uint8Array(8), wrong, 1), typed);
  }
});

test("tokens that change while a job waits or runs are those of the call", () =>
  withModel(async (model) => {
    const batch = tinyBatch();
    const expected = await model.forward(tinyBatch());
    const blocker = model.generate(Array.from({ length: 20 }, () => tinyRequest()));
    const forwarded = model.forward(batch);
    const request = tinyRequest({ prompt: Int32Array.of(1, 2, 3) });
    const generated = model.generate([request]);
    batch.tokens.fill(2 ** 30);
    batch.targets.fill(2 ** 30);
    request.prompt.fill(-(2 ** 30));
    await blocker;
    assert.deepEqual(await forwarded, expected);
    assert.deepEqual(await generated, await model.generate([tinyRequest()]));
  }));

test("a cancelled job frees what it held, waiting or running", () =>
  withModel(async (model) => {
    const requests = Array.from({ length: 64 }, () => tinyRequest());
    await model.generate(requests);
    const before = model.memory.bytes;
    for (let round = 0; round < 5; round++) {
      const controller = new AbortController();
      const options = { signal: controller.signal };
      const running = model.generate(requests, { ...options, onToken: () => controller.abort() });
      const waiting = model.generate(requests, options);
      const claims = requests.map(({ prompt, samplingSeed }) => ({
        prompt,
        samplingSeed,
        completion: Int32Array.of(1, 2),
        temperature: 1,
        topK: 0,
        topP: 1,
      }));
      const replaying = model.replay(claims, options);
      for (const job of [running, waiting, replaying]) {
        await assert.rejects(job, { code: "COV_KERNELS_CANCELLED" });
      }
    }
    assert.ok(model.memory.bytes <= before);
  }));

test("jobs of several models and of none run side by side", async () => {
  const models = await Promise.all(
    [1, 2, 3].map(() => Model.create(tinyShape, { parameters, threads: 1 })),
  );
  const losses = await Promise.all([
    ...models.map(async (model) => (await model.trainStep(tinyBatch(), adamw)).loss),
    stateRoot(parameters, tensors),
  ]);
  assert.equal(new Set(losses.slice(0, 3)).size, 1);
  for (const model of models) model.close();
});

/** Runs a program that leaves at a bad time; it must end by itself, in order. */
function leave(body: string, expected: number) {
  const at = (file: string) => JSON.stringify(new URL(file, import.meta.url).href);
  const program = `
    import { Worker } from "node:worker_threads";
    import * as kernels from ${at("./index.ts")};
    import * as support from ${at("./test-support.ts")};
    const { Model } = kernels;
    const model = await Model.create(support.tinyShape, {
      parameters: kernels.initialParameters(support.tinyShape, 7n) });
    const requests = Array.from({ length: 2000 }, () => support.tinyRequest());
    const busy = () => {
      model.generate(requests, { onToken() {} }).catch(() => {});
      for (let i = 0; i < 50; i++) model.trainStep(support.tinyBatch(), support.adamw).catch(() => {});
    };
    ${body}`;
  const run = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    encoding: "utf8",
    timeout: 120_000,
  });
  assert.equal(run.signal, null, run.stderr);
  assert.equal(run.status, expected, run.stderr);
  assert.equal(run.stderr, expected === 1 ? run.stderr : "");
}

test("a process may exit while jobs run", () => {
  leave("busy(); process.exit(3);", 3);
  leave("busy(); setTimeout(() => process.exit(4), 50);", 4);
  leave(
    `const adapter = await model.createAdapter({ rank: 4, alpha: 8 });
     const view = adapter.parameters;
     const generator = await adapter.createGenerator();
     for (const request of requests.slice(0, 64)) generator.generate(request).catch(() => {});
     for (let i = 0; i < 20; i++) adapter.trainStep(support.tinyBatch(), support.adamw).catch(() => {});
     adapter.release();
     setTimeout(() => process.exit(view.length > 0 ? 5 : 1), 30);`,
    5,
  );
  leave("busy(); process.on('exit', () => { process.exitCode = 6; }); process.exit();", 6);
});

const noDevices = emulateDevices(1);
test("a process may exit while jobs run on a device", { skip: noDevices ?? false }, () => {
  leave(
    `const device = await kernels.DeviceModel.create(support.tinyShape);
     device.generate(requests.slice(0, 50), { onToken() {} }).catch(() => {});
     for (let i = 0; i < 20; i++) device.trainStep(support.tinyBatch(), support.adamw).catch(() => {});
     setTimeout(() => process.exit(8), 30);`,
    8,
  );
});

test("an uncaught error while jobs run ends the process as usual", () => {
  leave("busy(); setTimeout(() => { throw new Error('mine'); }, 20);", 1);
});

test("a process with nothing left to do ends, with its models open", () => {
  leave("await model.trainStep(support.tinyBatch(), support.adamw); process.exitCode = 7;", 7);
});
