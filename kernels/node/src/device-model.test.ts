// Models on CUDA devices. Where there is no GPU the emulated library computes, with the same code.
import assert from "node:assert/strict";
import {
  DeviceModel,
  type DeviceModelOptions,
  devices,
  initialParameters,
  KernelError,
  Model,
  type TrainableModel,
  type WeightType,
} from "./index.ts";
import {
  adamw,
  closeWhileBusy,
  deviceTests,
  isKernelError,
  tinyBatch,
  tinyRequest,
  tinyShape,
} from "./test-support.ts";

const test = deviceTests(2);
const parameters = initialParameters(tinyShape, 7n);

async function withModel(
  body: (model: DeviceModel) => Promise<void>,
  options: DeviceModelOptions = {},
) {
  const model = await DeviceModel.create(tinyShape, { parameters, ...options });
  try {
    await body(model);
  } finally {
    model.close();
  }
}

/** The same body on the CPU and on devices; what it returns must have the same bits. */
async function sameBits(
  body: (model: TrainableModel) => Promise<unknown>,
  options: DeviceModelOptions = {},
) {
  const cpu = await Model.create(tinyShape, { parameters, threads: 1 });
  const device = await DeviceModel.create(tinyShape, { parameters, ...options });
  const [expected, found] = await Promise.all([body(cpu), body(device)]);
  cpu.close();
  device.close();
  assert.deepEqual(found, expected);
}

/** A few steps, the parts of one more, and everything the model holds then. */
async function train(model: TrainableModel) {
  const steps = [];
  for (let step = 0; step < 4; step++) steps.push(await model.trainStep(tinyBatch(), adamw));
  const scores = await model.forward(tinyBatch(), {
    keepActivations: true,
    temperature: 0.7,
    topLogProbs: 5,
  });
  await model.backward(Float32Array.from({ length: 64 }, (_, i) => -Math.cos(i) / 64));
  const gradients = await model.read("gradients");
  assert.ok(gradients.some((value) => value !== 0));
  const { gradientNorm } = await model.optimizerStep(adamw);
  const state = await Promise.all([
    model.read("parameters"),
    model.read("firstMoment"),
    model.read("secondMoment"),
  ]);
  return { steps, scores, gradients, gradientNorm, state, count: model.optimizerStepCount };
}

test("in fp32, training has the bits of the CPU", () => sameBits(train));

test("layers split over two devices have them too", () =>
  sameBits(train, { devices: [0, 1], layout: "layer-split" }));

/** A generation and its replay, with weights of a type. */
const generateAndReplay = (weights?: WeightType) => async (model: TrainableModel) => {
  const fingerprint = { seed: new Uint8Array(32).fill(3), dims: 8 };
  const tokens: number[] = [];
  const request = tinyRequest({ maxNewTokens: 12, topK: 20 });
  const [out] = await model.generate([request, tinyRequest({ maxNewTokens: 3 })], {
    weights,
    fingerprint,
    topLogProbs: 2,
    onToken: (event) => {
      if (event.request === 0) tokens.push(event.token);
    },
  });
  assert.deepEqual(tokens, [...out!.tokens]);
  const { prompt, temperature, topK, topP, samplingSeed } = request;
  const claim = { prompt, completion: out!.tokens, temperature, topK, topP, samplingSeed };
  const replayed = await model.replay([claim], { fingerprint, weights });
  assert.deepEqual(replayed[0]!.drawn, out!.tokens);
  return { out, replayed };
};

test("generation and replay have the bits of the CPU", () => sameBits(generateAndReplay()));

for (const compute of ["f32", "bf16"] as const)
  test(`from bf16 and int8 weights of a model in ${compute} they have them, too`, async () => {
    await sameBits(generateAndReplay("bf16"), { compute });
    await sameBits(generateAndReplay("int8"), { compute });
  });

test("replicas take parts of a batch and agree with the CPU to rounding", () =>
  withModel(
    async (model) => {
      assert.deepEqual(model.places, [
        { device: 0, firstLayer: 0, layerCount: 2 },
        { device: 1, firstLayer: 0, layerCount: 2 },
      ]);
      assert.match(model.report, /2 replicas/);
      const cpu = await Model.create(tinyShape, { parameters, threads: 1 });
      for (let step = 0; step < 3; step++) {
        const expected = await cpu.trainStep(tinyBatch(), adamw);
        const found = await model.trainStep(tinyBatch(), adamw);
        assert.ok(Math.abs(found.loss - expected.loss) < 1e-5);
      }
      cpu.close();
    },
    { devices: [0, 1] },
  ));

test("replicas share the requests, stages the layers, and each request yields what the CPU yields", async () => {
  for (const layout of ["data-parallel", "layer-split"] as const) {
    await withModel(
      async (model) => {
        const cpu = await Model.create(tinyShape, { parameters, threads: 1 });
        const requests = [3, 1, 6, 2, 5].map((maxNewTokens) => tinyRequest({ maxNewTokens }));
        const told = requests.map(() => 0);
        const found = await model.generate(requests, {
          onToken: ({ request }) => {
            told[request] = (told[request] ?? 0) + 1;
          },
        });
        assert.deepEqual(found, await cpu.generate(requests));
        assert.deepEqual(
          told,
          found.map(({ tokens }) => tokens.length),
        );
        cpu.close();
      },
      { devices: [0, 1], layout },
    );
  }
});

test("each device of a split holds its layers, and the caps and counts are of all", () =>
  withModel(
    async (split) => {
      assert.deepEqual(split.places, [
        { device: 1, firstLayer: 0, layerCount: 1 },
        { device: 0, firstLayer: 1, layerCount: 1 },
      ]);
      await split.trainStep(tinyBatch(), adamw);
      assert.ok(split.memory.bytes >= 4 * parameters.byteLength);
      assert.ok(split.memory.peakBytes >= split.memory.bytes);
    },
    { devices: [1, 0], layout: { stages: 2 } },
  ));

test("bf16 trains as well, from the same parameters", () =>
  withModel(
    async (rounded) => {
      const cpu = await Model.create(tinyShape, { parameters, threads: 1 });
      for (let step = 0; step < 3; step++) {
        const [a, b] = [
          await cpu.trainStep(tinyBatch(), adamw),
          await rounded.trainStep(tinyBatch(), adamw),
        ];
        assert.notEqual(a.loss, b.loss);
        assert.ok(Math.abs(a.loss - b.loss) < 0.03);
      }
      cpu.close();
    },
    { compute: "bf16" },
  ));

test("a state that is written continues bit for bit, and parts of a buffer can be moved", () =>
  withModel(async (first) => {
    await first.trainStep(tinyBatch(), adamw);
    const second = await Model.create(tinyShape, { threads: 1 });
    for (const buffer of ["parameters", "firstMoment", "secondMoment"] as const) {
      const half = parameters.length >> 1;
      const [low, high] = await Promise.all([
        first.read(buffer, { count: half }),
        first.read(buffer, { offset: half }),
      ]);
      await second.write(buffer, low);
      await second.write(buffer, high, { offset: half });
    }
    second.optimizerStepCount = first.optimizerStepCount;
    await Promise.all([first.trainStep(tinyBatch(), adamw), second.trainStep(tinyBatch(), adamw)]);
    assert.deepEqual(await first.read("parameters"), second.parameters);
    first.optimizerStepCount = 9;
    assert.equal(first.optimizerStepCount, 9);
    second.close();
  }));

test("gradients add up until they are cleared", () =>
  sameBits(async (model) => {
    const coefficients = new Float32Array(64).fill(-1 / 64);
    for (let time = 0; time < 2; time++) {
      await model.forward(tinyBatch(), { keepActivations: true });
      await model.backward(coefficients);
    }
    const twice = await model.read("gradients");
    await model.clear("gradients");
    assert.ok((await model.read("gradients")).every((value) => value === 0));
    return twice;
  }));

test("what a device cannot do, or is not there, is a typed error", () =>
  withModel(async (model) => {
    const range = isKernelError("COV_KERNELS_OUT_OF_RANGE");
    const invalid = isKernelError("COV_KERNELS_INVALID_ARGUMENT");
    const create = (options: DeviceModelOptions, shape = tinyShape) =>
      DeviceModel.create(shape, options);
    const missing = devices().devices.length;
    await assert.rejects(create({ devices: [missing] }), range);
    await assert.rejects(create({ devices: [0, missing] }), range);
    await assert.rejects(create({ devices: [] }), invalid);
    await assert.rejects(create({ devices: [-1] }), invalid);
    await assert.rejects(create({ devices: [0, 0] }), invalid);
    await assert.rejects(create({ devices: [0, 1], layout: { stages: 3 } }), invalid);
    await assert.rejects(create({ parameters: new Float32Array(3) }), invalid);
    await assert.rejects(create({ compute: "f16" as "bf16" }), invalid);
    await assert.rejects(create({}, { ...tinyShape, headCount: 5 }), KernelError);
    await assert.rejects(create({ products: "cublaslt" }), KernelError);
    await assert.rejects(model.forward(tinyBatch(), { topLogProbs: 65 }), invalid);
    const unknown = { weights: "int4" as WeightType };
    await assert.rejects(model.generate([tinyRequest()], unknown), invalid);
    const batch = tinyBatch();
    batch.tokens[0] = 64;
    await assert.rejects(model.trainStep(batch, adamw), range);
    await assert.rejects(model.trainStep({ ...tinyBatch(), sequences: 3 }, adamw), invalid);
    await assert.rejects(model.read("parameters", { offset: 1, count: parameters.length }), range);
    await assert.rejects(model.read("parameters", { offset: -1, count: 1 }), invalid);
    await assert.rejects(model.read("parameters", { count: 1.5 }), range);
    await assert.rejects(model.write("parameters", parameters, { offset: 1 }), range);
    await assert.rejects(
      model.backward(new Float32Array(64)),
      isKernelError("COV_KERNELS_FAILED_PRECONDITION"),
    );
    // After all of that the model works.
    assert.ok((await model.trainStep(tinyBatch(), adamw)).loss > 0);
  }));

test("memory is counted and capped, and a refused step harms nothing", async () => {
  const limit = isKernelError("COV_KERNELS_MEMORY_LIMIT");
  await assert.rejects(DeviceModel.create(tinyShape, { memoryLimitBytes: 1000 }), limit);
  const memoryLimitBytes = 2 * parameters.byteLength;
  await withModel(
    async (model) => {
      const before = model.memory.bytes;
      assert.ok(before >= parameters.byteLength && before <= memoryLimitBytes);
      await assert.rejects(model.trainStep(tinyBatch(), adamw), limit);
      assert.deepEqual(await model.read("parameters"), parameters);
      assert.ok(model.memory.peakBytes <= memoryLimitBytes);
    },
    { memoryLimitBytes },
  );
});

test("aborting stops generation at the next token, and a step that waits", () =>
  withModel(async (model) => {
    const controller = new AbortController();
    const { signal } = controller;
    let seen = 0;
    const requests = Array.from({ length: 20 }, () => tinyRequest());
    const running = model.generate(requests, {
      signal,
      maxBatch: 1,
      onToken: () => {
        if (++seen === 3) controller.abort();
      },
    });
    const waiting = model.trainStep(tinyBatch(), adamw, { signal });
    const cancelled = isKernelError("COV_KERNELS_CANCELLED");
    await assert.rejects(running, cancelled);
    await assert.rejects(waiting, cancelled);
    assert.ok(seen < 20 * 60);
    assert.equal(model.optimizerStepCount, 0);
    assert.ok((await model.trainStep(tinyBatch(), adamw)).loss > 0);
  }));

test("several models work side by side, on one device, on another and on the CPU", async () => {
  const made: TrainableModel[] = await Promise.all([
    DeviceModel.create(tinyShape, { parameters }),
    DeviceModel.create(tinyShape, { parameters }),
    DeviceModel.create(tinyShape, { parameters, devices: [1] }),
    Model.create(tinyShape, { parameters, threads: 1 }),
  ]);
  const ends = await Promise.all(
    made.map(async (model) => {
      for (let step = 0; step < 3; step++) await model.trainStep(tinyBatch(), adamw);
      return model.read("parameters");
    }),
  );
  for (const end of ends) assert.deepEqual(end, ends[0]);
  for (const model of made) model.close();
});

test("memory does not grow over repeated models", async () => {
  const round = async () => {
    for (let i = 0; i < 6; i++) {
      await withModel(async (model) => {
        await model.trainStep(tinyBatch(), adamw);
        await model.generate([tinyRequest({ maxNewTokens: 2 })]);
        await model.read("gradients");
      });
    }
    return process.memoryUsage().rss;
  };
  for (let i = 0; i < 3; i++) await round();
  const before = await round();
  for (let i = 0; i < 10; i++) await round();
  // 60 models of some 3 MB each would be 180 MB.
  const grown = (await round()) - before;
  assert.ok(grown < 60 << 20, `grew by ${grown} bytes`);
});

test("closing is safe at any time", async () => {
  await closeWhileBusy(await DeviceModel.create(tinyShape, { parameters }));
});
