// Generators on the CPU and on CUDA devices; where there is no GPU the emulated library computes, with the same code.
import assert from "node:assert/strict";
import { after, test as anyTest } from "node:test";
import {
  DeviceModel,
  type GenerateRequest,
  initialParameters,
  KernelError,
  Model,
  type ModelShape,
  type TrainableModel,
} from "./index.ts";
import { emulateDevices } from "./testing.ts";

const shape: ModelShape = {
  vocabSize: 64,
  hiddenSize: 32,
  intermediateSize: 48,
  layerCount: 2,
  headCount: 4,
  kvHeadCount: 2,
  maxPositions: 256,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};
const parameters = initialParameters(shape, 7n).map((value) => (value === 1 ? 1 : value * 10));

const skip = emulateDevices(2) ?? false;
const cpu = await Model.create(shape, { parameters });
after(() => cpu.close());

interface Place {
  model: TrainableModel;
  /** Another model in the same place. */
  another(): Promise<TrainableModel>;
}

const places: Record<string, () => Promise<TrainableModel>> = {
  "the CPU": () => Model.create(shape, { parameters, threads: 2 }),
  "a device": () => DeviceModel.create(shape, { parameters }),
  "two replicas": () => DeviceModel.create(shape, { parameters, devices: [0, 1] }),
  "two stages": () =>
    DeviceModel.create(shape, { parameters, devices: [0, 1], layout: "layer-split" }),
};

/** The body in every place where models compute. */
function test(name: string, body: (place: Place) => Promise<void>): void {
  for (const [where, another] of Object.entries(places)) {
    anyTest(`${name}, on ${where}`, { skip: where !== "the CPU" && skip }, async () => {
      const model = await another();
      try {
        await body({ model, another });
      } finally {
        model.close();
      }
    });
  }
}

function request(seed: number, maxNewTokens: number, prompt = [1, 2, seed % 64]): GenerateRequest {
  return {
    prompt: Int32Array.from(prompt),
    maxNewTokens,
    stopTokens: [],
    temperature: 1,
    topK: 0,
    topP: 1,
    samplingSeed: new Uint8Array(32).fill(seed),
  };
}

const fingerprint = { seed: new Uint8Array(32).fill(3), dims: 5 };

test("concurrent callers get what each would get alone, under every weight type", async ({
  model,
}) => {
  for (const weights of ["f32", "bf16", "int8"] as const) {
    const generator = await model.createGenerator({ weights, maxBatch: 3, stepRows: 7 });
    const seeds = [1, 2, 3, 4, 5, 6, 7, 8];
    const results = await Promise.all(
      seeds.map(async (seed) => {
        const seen: number[] = [];
        const result = await generator.generate(request(seed, 5 + seed * 3), {
          fingerprint,
          topLogProbs: 2,
          onToken: ({ index, token }) => {
            assert.equal(index, seen.length);
            seen.push(token);
          },
        });
        assert.deepEqual(seen, [...result.tokens]);
        return result;
      }),
    );
    const alone = await Promise.all(
      seeds.map(async (seed) => {
        const options = { weights, fingerprint, topLogProbs: 2 };
        return (await cpu.generate([request(seed, 5 + seed * 3)], options))[0];
      }),
    );
    assert.deepEqual(results, alone);
    const { prompt, ...sampling } = request(1, 8);
    const completion = results[0]!.tokens;
    const [replayed] = await model.replay([{ prompt, completion, ...sampling }], {
      weights,
      fingerprint,
    });
    assert.deepEqual(replayed!.logProbs, results[0]!.logProbs);
    assert.deepEqual(replayed!.fingerprints, results[0]!.fingerprints);
    await generator.close();
  }
});

test("a request joins while another decodes, and the model's other jobs have their turn", async ({
  model,
}) => {
  const generator = await model.createGenerator();
  let others = 0;
  let joined: Promise<unknown> | undefined;
  const long = generator.generate(request(9, 250), {
    onToken: ({ index }) => {
      if (index !== 3) return;
      joined = generator.generate(request(10, 2)).then(() => {
        others += 1;
      });
    },
  });
  await long;
  await joined;
  assert.equal(others, 1);
  assert.equal(generator.state.running, 0);
  assert.equal(generator.state.pages, 0);
  const batch = {
    tokens: Int32Array.of(1, 2),
    targets: Int32Array.of(2, 3),
    sequences: 1,
    sequenceLength: 2,
  };
  const [, scored] = await Promise.all([
    generator.generate(request(11, 250)),
    model.forward(batch),
  ]);
  assert.equal(scored.logProbs.length, 2);
  await generator.close();
});

test("aborting one request leaves the others alone", async ({ model }) => {
  const generator = await model.createGenerator();
  const controller = new AbortController();
  const aborted = generator.generate(request(12, 250), {
    signal: controller.signal,
    onToken: ({ index }) => {
      if (index === 2) controller.abort();
    },
  });
  const kept = generator.generate(request(13, 40));
  await assert.rejects(aborted, { code: "COV_KERNELS_CANCELLED" });
  assert.deepEqual((await kept).tokens, (await model.generate([request(13, 40)]))[0]!.tokens);
  await assert.rejects(generator.generate(request(12, 5), { signal: AbortSignal.abort() }), {
    code: "COV_KERNELS_CANCELLED",
  });
  await assert.rejects(
    generator.generate(request(12, 5), {
      onToken: () => {
        throw new Error("no more");
      },
    }),
    { message: "no more" },
  );
  await generator.close();
});

test("what is wrong with a request is its own error", async ({ model }) => {
  const generator = await model.createGenerator({ pageLimit: 2 });
  const codes = await Promise.all(
    [request(1, 300), request(1, 5, [99]), request(1, 100), request(1, 5)].map((asked) =>
      generator.generate(asked).then(
        () => "fine",
        (error: unknown) => (error instanceof KernelError ? error.code : "unknown"),
      ),
    ),
  );
  assert.deepEqual(codes, [
    "COV_KERNELS_OUT_OF_RANGE",
    "COV_KERNELS_OUT_OF_RANGE",
    "COV_KERNELS_MEMORY_LIMIT",
    "fine",
  ]);
  const running = generator.generate(request(2, 20));
  const closed = assert.rejects(running, { code: "COV_KERNELS_CLOSED" });
  await generator.close();
  await closed;
  await assert.rejects(generator.generate(request(1, 5)), { code: "COV_KERNELS_CLOSED" });
  await generator.close();
});

test("more requests than the limit are refused at once, and room comes back", async ({ model }) => {
  const generator = await model.createGenerator({ requestLimit: 2, maxBatch: 1 });
  const busy = {
    code: "COV_KERNELS_BUSY",
    message: "2 requests are under way already, which is the limit",
  };
  const controller = new AbortController();
  const first = generator.generate(request(1, 200), { signal: controller.signal });
  const second = generator.generate(request(2, 5));
  await assert.rejects(generator.generate(request(3, 5)), busy);
  const left = assert.rejects(first, { code: "COV_KERNELS_CANCELLED" });
  controller.abort();
  const third = generator.generate(request(3, 5));
  await left;
  assert.equal((await second).tokens.length, 5);
  assert.equal((await third).tokens.length, 5);
  await generator.close();
  const limits = [-1, 1.5, Number.NaN, (1 << 20) + 1];
  for (const requestLimit of limits) {
    await assert.rejects(model.createGenerator({ requestLimit }), {
      code: "COV_KERNELS_INVALID_ARGUMENT",
    });
  }
});

test("a generator keeps its weights until it is refreshed", async ({ another }) => {
  const own = await another();
  const generator = await own.createGenerator();
  const before = await generator.generate(request(20, 12));
  const others = initialParameters(shape, 8n).map((value) => (value === 1 ? 1 : value * 10));
  await own.write("parameters", others);
  assert.deepEqual((await generator.generate(request(20, 12))).tokens, before.tokens);
  await generator.refresh();
  const fresh = await generator.generate(request(20, 12));
  assert.notDeepEqual(fresh.tokens, before.tokens);
  assert.deepEqual(fresh.tokens, (await own.generate([request(20, 12)]))[0]!.tokens);
  // The closing of the model meets this request anywhere: before its first token or after its last.
  const left = generator.generate(request(21, 200)).then(
    () => "finished",
    (error: unknown) => (error instanceof KernelError ? error.code : error),
  );
  own.close();
  assert.ok(["finished", "COV_KERNELS_CLOSED"].includes(String(await left)));
  await assert.rejects(generator.generate(request(22, 5)), { code: "COV_KERNELS_CLOSED" });
});
