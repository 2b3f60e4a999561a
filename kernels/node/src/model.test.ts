import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { initialParameters, KernelError, Model, type TokenEvent, tensorTable } from "./index.ts";
import {
  adamw,
  closeWhileBusy,
  isKernelError,
  noise,
  tinyBatch,
  tinyRequest,
  tinyShape,
} from "./test-support.ts";

const codeOf = (outcome: PromiseSettledResult<unknown>) =>
  outcome.status === "rejected" && outcome.reason instanceof KernelError && outcome.reason.code;

async function withModel(body: (model: Model) => Promise<void>, seed = 7n) {
  const model = await Model.create(tinyShape, {
    parameters: initialParameters(tinyShape, seed),
    threads: 1,
  });
  try {
    await body(model);
  } finally {
    model.close();
  }
}

test("initial parameters: the same for a seed, norms 1", () => {
  const parameters = initialParameters(tinyShape, 7n);
  assert.deepEqual(parameters, initialParameters(tinyShape, 7n));
  assert.notDeepEqual(parameters, initialParameters(tinyShape, 8n));
  const norm = tensorTable(tinyShape).at(-1)!;
  assert.ok(parameters.subarray(norm.offset, norm.offset + norm.length).every((x) => x === 1));
  assert.throws(() => initialParameters(tinyShape, -1n), KernelError);
  assert.throws(() => initialParameters(tinyShape, 2n ** 64n), KernelError);
});

test("training lowers the loss, and the views show it", () =>
  withModel(async (model) => {
    const before = model.parameters.slice();
    const losses: number[] = [];
    for (let step = 0; step < 20; step++) {
      losses.push((await model.trainStep(tinyBatch(), adamw)).loss);
    }
    assert.ok(losses.at(-1)! < losses[0]! - 0.5);
    assert.equal(model.optimizerStepCount, 20);
    assert.equal(model.parameters, model.parameters);
    assert.notDeepEqual(model.parameters, before);
    assert.ok(model.secondMoment.some((x) => x > 0));
    assert.ok(model.memory.peakBytes >= model.memory.bytes);
    assert.ok(model.memory.bytes >= model.parameters.byteLength);
  }));

test("bf16 products train as well as fp32 ones, from the same parameters", () =>
  withModel(async (exact) => {
    const options = { parameters: initialParameters(tinyShape, 7n), threads: 1 };
    const rounded = await Model.create(tinyShape, { ...options, compute: "bf16" });
    for (let step = 0; step < 5; step++) {
      const [a, b] = await Promise.all([
        exact.trainStep(tinyBatch(), adamw),
        rounded.trainStep(tinyBatch(), adamw),
      ]);
      assert.notEqual(a.loss, b.loss);
      assert.ok(Math.abs(a.loss - b.loss) < 0.02);
    }
    rounded.close();
    const wrong = { ...options, compute: "f16" as "bf16" };
    await assert.rejects(
      Model.create(tinyShape, wrong),
      isKernelError("COV_KERNELS_INVALID_ARGUMENT"),
    );
  }));

test("a state written through the views continues bit for bit", () =>
  withModel(async (first) => {
    await first.trainStep(tinyBatch(), adamw);
    await withModel(async (second) => {
      second.parameters.set(first.parameters);
      second.firstMoment.set(first.firstMoment);
      second.secondMoment.set(first.secondMoment);
      second.optimizerStepCount = first.optimizerStepCount;
      await Promise.all([
        first.trainStep(tinyBatch(), adamw),
        second.trainStep(tinyBatch(), adamw),
      ]);
      assert.deepEqual(second.parameters, first.parameters);
    }, 99n);
  }));

test("forward, backward and a step do what trainStep does", () =>
  withModel(async (whole) => {
    await withModel(async (parts) => {
      const batch = tinyBatch();
      const { loss } = await whole.trainStep(batch, adamw);
      const result = await parts.forward(batch, { keepActivations: true, topLogProbs: 3 });
      const mean = -result.logProbs.reduce((sum, x) => sum + x, 0) / 64;
      assert.ok(Math.abs(mean - loss) < 1e-4);
      assert.equal(result.topTokens?.length, 64 * 3);
      assert.ok(result.entropy.every((x) => x > 0));
      await parts.backward(new Float32Array(64).fill(-1 / 64));
      assert.ok(parts.gradients.some((x) => x !== 0));
      const { gradientNorm } = await parts.optimizerStep(adamw);
      assert.ok(gradientNorm > 0);
      assert.ok(parts.gradients.every((x) => x === 0));
      const pairs = Array.from(parts.parameters, (x, i) => Math.abs(x - whole.parameters[i]!));
      assert.ok(Math.max(...pairs) < 1e-3);
    });
  }));

test("replay draws what generate drew, and tells a changed token", () =>
  withModel(async (model) => {
    const fingerprint = { seed: new Uint8Array(32).fill(3), dims: 8 };
    const events: TokenEvent[] = [];
    const request = tinyRequest({ maxNewTokens: 20 });
    const [out] = await model.generate([request, tinyRequest({ maxNewTokens: 3 })], {
      onToken: (event) => events.push(event),
      fingerprint,
      topLogProbs: 2,
    });
    assert.ok(out);
    assert.equal(out.tokens.length, 20);
    assert.equal(out.finishReason, "length");
    const own = events.filter((event) => event.request === 0);
    assert.deepEqual(
      Int32Array.from(own, (event) => event.token),
      out.tokens,
    );
    assert.deepEqual(
      Float32Array.from(own, (event) => event.logProb),
      out.logProbs,
    );
    assert.equal(out.topLogProbs?.length, 40);

    const { prompt, temperature, topK, topP, samplingSeed } = request;
    const claim = { prompt, completion: out.tokens, temperature, topK, topP, samplingSeed };
    const [honest] = await model.replay([claim], { fingerprint });
    assert.deepEqual(honest?.drawn, out.tokens);
    assert.deepEqual(honest?.fingerprints, out.fingerprints);
    assert.deepEqual(honest?.logProbs, out.logProbs);
    const forged = out.tokens.slice();
    forged[4] = (forged[4]! + 1) % 64;
    const [caught] = await model.replay([{ ...claim, completion: forged }]);
    assert.notEqual(caught?.drawn[4], forged[4]);
    assert.equal(caught?.margin[4], 0);
  }));

test("a stop token ends the completion and is part of it", () =>
  withModel(async (model) => {
    const [free] = await model.generate([tinyRequest()]);
    const stop = free!.tokens[5]!;
    const [ended] = await model.generate([tinyRequest({ stopTokens: [stop] })]);
    const at = free!.tokens.indexOf(stop);
    assert.deepEqual(ended!.tokens, free!.tokens.slice(0, at + 1));
    assert.equal(ended!.finishReason, "stop");
  }));

test("aborting stops generation", () =>
  withModel(async (model) => {
    const controller = new AbortController();
    let seen = 0;
    const job = model.generate(
      Array.from({ length: 200 }, () => tinyRequest()),
      {
        signal: controller.signal,
        maxBatch: 1,
        onToken: () => {
          if (++seen === 3) controller.abort();
        },
      },
    );
    await assert.rejects(job, isKernelError("COV_KERNELS_CANCELLED"));
    assert.ok(seen < 200 * 60);
    const early = model.generate([tinyRequest()], { signal: AbortSignal.abort() });
    await assert.rejects(early, isKernelError("COV_KERNELS_CANCELLED"));
    // The model goes on working.
    assert.equal((await model.generate([tinyRequest()]))[0]?.tokens.length, 60);
  }));

test("what onToken throws is what generate rejects with", () =>
  withModel(async (model) => {
    const mine = new Error("enough");
    const job = model.generate(
      Array.from({ length: 50 }, () => tinyRequest()),
      {
        maxBatch: 1,
        onToken: () => {
          throw mine;
        },
      },
    );
    await assert.rejects(job, (error) => error === mine);
  }));

test("bad arguments are refused before they reach the engine", () =>
  withModel(async (model) => {
    const invalid = isKernelError("COV_KERNELS_INVALID_ARGUMENT");
    const range = isKernelError("COV_KERNELS_OUT_OF_RANGE");
    await assert.rejects(model.forward({ ...tinyBatch(), sequences: 3 }), invalid);
    const batch = tinyBatch();
    batch.tokens[0] = 64;
    await assert.rejects(model.forward(batch), range);
    await assert.rejects(model.generate([tinyRequest({ maxNewTokens: 1e9 })]), range);
    await assert.rejects(model.generate([tinyRequest({ prompt: new Int32Array(0) })]), invalid);
    const short = tinyRequest({ samplingSeed: new Uint8Array(31) });
    await assert.rejects(model.generate([short]), invalid);
    await assert.rejects(
      model.backward(new Float32Array(64)),
      isKernelError("COV_KERNELS_FAILED_PRECONDITION"),
    );
    await assert.rejects(Model.create({ ...tinyShape, headCount: 5 }), KernelError);
    await assert.rejects(Model.create(tinyShape, { parameters: new Float32Array(3) }), KernelError);
    await assert.rejects(
      Model.create(tinyShape, { memoryLimitBytes: 1000 }),
      isKernelError("COV_KERNELS_MEMORY_LIMIT"),
    );
    const text = "shape" as unknown as typeof tinyShape;
    await assert.rejects(Model.create(text), invalid);
    await assert.rejects(model.read("weights" as "parameters"), {
      code: "COV_KERNELS_INVALID_ARGUMENT",
      message:
        "There is no buffer weights; there are parameters, gradients, firstMoment, secondMoment.",
    });
  }));

test("closing is safe at any time", async () => {
  const model = await Model.create(tinyShape, { parameters: initialParameters(tinyShape, 1n) });
  const view = model.parameters;
  const copy = view.slice();
  await closeWhileBusy(model);
  assert.throws(() => model.parameters, isKernelError("COV_KERNELS_CLOSED"));
  // A view outlives the model.
  assert.deepEqual(view, copy);
});

test("a full queue is said, not grown", () =>
  withModel(async (model) => {
    const controller = new AbortController();
    const requests = Array.from({ length: 2000 }, () => tinyRequest());
    const long = model.generate(requests, { signal: controller.signal, maxBatch: 1 });
    const jobs = Array.from({ length: 1100 }, () => model.optimizerStep(adamw));
    controller.abort();
    const outcomes = await Promise.allSettled([long, ...jobs]);
    const full = outcomes.filter((outcome) => codeOf(outcome) === "COV_KERNELS_QUEUE_FULL");
    assert.ok(full.length > 0 && full.length < 1100);
  }));

/** Runs a module in a worker thread until it exits or is terminated after its first message. */
async function runWorker(script: string, terminate: boolean): Promise<unknown> {
  const worker = new Worker(script, { eval: true });
  // Listened for from the start: a worker's last message and its exit may arrive in one go.
  const exited = new Promise((resolve) => worker.once("exit", resolve));
  const message = await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  if (terminate) await worker.terminate();
  else await exited;
  return message;
}

const workerScript = (last: string) => `
  const { parentPort } = require("node:worker_threads");
  import(${JSON.stringify(new URL("./index.ts", import.meta.url).href)}).then(async (kernels) => {
    const support = await import(${JSON.stringify(new URL("./test-support.ts", import.meta.url).href)});
    const model = await kernels.Model.create(support.tinyShape, {
      parameters: kernels.initialParameters(support.tinyShape, 7n),
    });
    const { loss } = await model.trainStep(support.tinyBatch(), support.adamw);
    ${last}
  });
`;

test("works in worker threads, side by side with this one", () =>
  withModel(async (model) => {
    const script = workerScript("parentPort.postMessage(loss); model.close();");
    const [here, ...there] = await Promise.all([
      model.trainStep(tinyBatch(), adamw),
      runWorker(script, false),
      runWorker(script, false),
    ]);
    assert.deepEqual(there, [here.loss, here.loss]);
  }));

test("a worker may be terminated while its models are busy", async () => {
  const busy = `
    for (let i = 0; i < 50; i++) model.trainStep(support.tinyBatch(), support.adamw).catch(() => {});
    model.generate(Array.from({ length: 500 }, () => support.tinyRequest()), { onToken() {} }).catch(() => {});
    parentPort.postMessage(loss);
  `;
  for (let round = 0; round < 3; round++) {
    assert.equal(typeof (await runWorker(workerScript(busy), true)), "number");
  }
});

test("memory does not grow over repeated jobs and models", async () => {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const round = async () => {
    for (let i = 0; i < 10; i++) {
      const model = await Model.create(tinyShape, { parameters: noise(20_640, 0.1, i + 1) });
      await model.trainStep(tinyBatch(), adamw);
      await model.forward(tinyBatch(), { topLogProbs: 8 });
      await model.generate([tinyRequest()], { onToken: () => {} });
      void model.gradients.length;
      model.close();
    }
    collect();
    return process.memoryUsage();
  };
  for (let i = 0; i < 5; i++) await round();
  const before = await round();
  for (let i = 0; i < 50; i++) await round();
  const after = await round();
  // 500 models of some 400 KB each would be 200 MB.
  assert.ok(after.rss - before.rss < 60 << 20, `grew by ${after.rss - before.rss} bytes`);
});
