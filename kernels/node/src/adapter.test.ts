import assert from "node:assert/strict";
import { test } from "node:test";
import { type AdapterOptions, type Batch, initialParameters, Model } from "./index.ts";
import { adamw, isKernelError, tinyBatch, tinyRequest, tinyShape } from "./test-support.ts";

/** Larger than usual, so that what is tested is far from uniform. */
const lively = initialParameters(tinyShape, 7n).map((value) => (value === 1 ? 1 : value * 10));
const options: AdapterOptions = { rank: 3, alpha: 6, seed: 5n };

async function withModel(body: (model: Model) => Promise<void>, memoryLimitBytes?: number) {
  const model = await Model.create(tinyShape, {
    parameters: lively,
    threads: 1,
    ...(memoryLimitBytes !== undefined && { memoryLimitBytes }),
  });
  try {
    await body(model);
  } finally {
    model.close();
  }
}

/** B is zero at first; values as after some training. */
function stir(values: Float32Array) {
  for (const [i, value] of values.entries()) values[i] = value + 0.1 * Math.sin(i * 12.9898);
}

const sum = (values: Float32Array) => values.reduce((total, value) => total + value, 0);

test("gradients are those of central differences, and the base keeps its bits", () =>
  withModel(async (model) => {
    const adapter = await model.createAdapter(options);
    stir(adapter.parameters);
    const batch = tinyBatch();
    const weights = Float32Array.from({ length: 64 }, (_, i) => Math.cos(i) / 8);
    const loss = async () => {
      const { logProbs } = await adapter.forward(batch);
      return logProbs.reduce((total, value, i) => total + value * weights[i]!, 0);
    };
    await adapter.forward(batch, { keepActivations: true });
    await adapter.backward(weights);
    const step = 2e-2;
    let largest = 0;
    const count = adapter.parameters.length;
    for (let check = 0; check < 40; check++) {
      const i = (check * 7919) % count;
      const at = adapter.parameters[i]!;
      adapter.parameters[i] = at + step;
      const up = await loss();
      adapter.parameters[i] = at - step;
      const expected = (up - (await loss())) / (2 * step);
      adapter.parameters[i] = at;
      largest = Math.max(largest, Math.abs(expected));
      const found = adapter.gradients[i]!;
      assert.ok(
        Math.abs(found - expected) < 4e-3 + 0.03 * Math.abs(expected),
        `parameter ${i}: ${found} instead of ${expected}`,
      );
    }
    assert.ok(largest > 0.05);
    assert.deepEqual(model.parameters, lively);
    assert.ok(model.gradients.every((value) => value === 0));
    await adapter.release();
  }));

test("buffers are read and written in parts", () =>
  withModel(async (model) => {
    const adapter = await model.createAdapter(options);
    const values = adapter.parameters.map((_, i) => i / 7);
    await adapter.write("parameters", values.subarray(0, 9));
    await adapter.write("parameters", values.subarray(9), { offset: 9 });
    assert.deepEqual(adapter.parameters, values);
    assert.deepEqual(await adapter.read("parameters", { offset: 5, count: 3 }), values.slice(5, 8));
    await adapter.forward(textBatch(0), { keepActivations: true });
    await adapter.backward(new Float32Array(128).fill(-1 / 128));
    assert.deepEqual(await adapter.read("gradients"), adapter.gradients);
    await adapter.clear("gradients");
    assert.ok(adapter.gradients.every((value) => value === 0));
    const range = isKernelError("COV_KERNELS_OUT_OF_RANGE");
    await assert.rejects(adapter.read("parameters", { count: values.length + 1 }), range);
    await assert.rejects(adapter.write("firstMoment", values, { offset: 1 }), range);
    assert.deepEqual(model.parameters, lively);
    await adapter.release();
    await assert.rejects(adapter.read("parameters"), isKernelError("COV_KERNELS_CLOSED"));
  }));

/** Sequences of 32 bytes of a text, each byte modulo the vocabulary. */
function textBatch(step: number): Batch {
  const text = `We hold these truths to be self-evident, that all models are trained equal, that they are endowed by
their makers with certain unalienable weights, that among these are queries, keys and the pursuit of values. `;
  const at = (sequence: number, position: number) => {
    const index = (step * 61 + sequence * 97 + position) % text.length;
    return text.charCodeAt(index) % 64;
  };
  const grid = (shift: number) =>
    Int32Array.from({ length: 4 * 32 }, (_, i) => at(Math.floor(i / 32), (i % 32) + shift));
  return { tokens: grid(0), targets: grid(1), sequences: 4, sequenceLength: 32 };
}

test("adapters learn a text while the base stays as it is", () =>
  withModel(async (model) => {
    const adapter = await model.createAdapter({ rank: 8, alpha: 16, seed: 1n });
    const optimizer = { ...adamw, learningRate: 1e-2, weightDecay: 0 };
    const losses: number[] = [];
    for (let step = 0; step < 120; step++) {
      const { loss, gradientNorm } = await adapter.trainStep(textBatch(step), optimizer);
      assert.ok(gradientNorm > 0);
      losses.push(loss);
    }
    const mean = (part: number[]) => part.reduce((total, loss) => total + loss, 0) / part.length;
    assert.ok(mean(losses.slice(-10)) < 0.6 * mean(losses.slice(0, 5)), losses.join(" "));
    assert.equal(adapter.optimizerStepCount, 120);
    assert.equal(model.optimizerStepCount, 0);
    assert.deepEqual(model.parameters, lively);
    // Saved and restored into fresh adapters, it goes on with the same bits.
    const again = await model.createAdapter({ rank: 8, alpha: 16, seed: 2n });
    again.parameters.set(adapter.parameters);
    again.firstMoment.set(adapter.firstMoment);
    again.secondMoment.set(adapter.secondMoment);
    again.optimizerStepCount = adapter.optimizerStepCount;
    const [one, two] = await Promise.all([
      adapter.trainStep(textBatch(120), optimizer),
      again.trainStep(textBatch(120), optimizer),
    ]);
    assert.equal(one.loss, two.loss);
    assert.deepEqual(again.parameters, adapter.parameters);
  }));

test("a step in parts does what trainStep does", () =>
  withModel(async (model) => {
    const whole = await model.createAdapter(options);
    const parts = await model.createAdapter(options);
    const { loss } = await whole.trainStep(tinyBatch(), adamw);
    const { logProbs } = await parts.forward(tinyBatch(), { keepActivations: true });
    assert.ok(Math.abs(-sum(logProbs) / 64 - loss) < 1e-3);
    await parts.backward(new Float32Array(64).fill(-1 / 64));
    const { gradientNorm } = await parts.optimizerStep(adamw);
    assert.ok(gradientNorm > 0 && parts.gradients.every((value) => value === 0));
    const pairs = Array.from(parts.parameters, (x, i) => Math.abs(x - whole.parameters[i]!));
    assert.ok(Math.max(...pairs) < 1e-3);
    // Another's call in between loses the kept forward, in a sentence.
    await parts.forward(tinyBatch(), { keepActivations: true });
    await model.forward(tinyBatch());
    await assert.rejects(
      parts.backward(new Float32Array(64)),
      isKernelError("COV_KERNELS_FAILED_PRECONDITION"),
    );
  }));

test("each adapter generates as the model does with it merged", () =>
  withModel(async (model) => {
    const one = await model.createAdapter({ ...options, targets: ["q", "v"] });
    const two = await model.createAdapter(options);
    stir(one.parameters);
    stir(two.parameters);
    const request = tinyRequest({ maxNewTokens: 24 });
    const says = async (of: Pick<Model, "generate">) =>
      (await of.generate([request], { weights: "int8" }))[0]!;
    const [plain, first, second] = await Promise.all([says(model), says(one), says(two)]);
    assert.notDeepEqual(first.tokens, plain.tokens);
    assert.notDeepEqual(second.tokens, first.tokens);
    const { prompt, samplingSeed } = request;
    const claim = { prompt, samplingSeed, temperature: 1, topK: 0, topP: 1 };
    const [replayed] = await one.replay([{ ...claim, completion: first.tokens }], {
      weights: "int8",
    });
    assert.deepEqual(replayed!.drawn, first.tokens);
    assert.deepEqual(replayed!.logProbs, first.logProbs);
    const generator = await one.createGenerator({ weights: "int8" });
    assert.deepEqual(await generator.generate(request), first);
    await model.forward(tinyBatch());
    await generator.refresh();
    assert.deepEqual(await generator.generate(request), first);

    await one.merge({ reversible: true });
    assert.deepEqual(await says(model), first);
    await assert.rejects(one.merge(), isKernelError("COV_KERNELS_FAILED_PRECONDITION"));
    await assert.rejects(
      one.trainStep(tinyBatch(), adamw),
      isKernelError("COV_KERNELS_FAILED_PRECONDITION"),
    );
    await two.merge({ reversible: true });
    await assert.rejects(one.unmerge(), isKernelError("COV_KERNELS_FAILED_PRECONDITION"));
    await two.unmerge();
    await one.unmerge();
    assert.deepEqual(model.parameters, lively);
    await two.merge();
    assert.deepEqual(await says(model), second);
    assert.deepEqual(await says(two), second);
    assert.deepEqual((await one.generate([request]))[0]!.tokens.length, 24);
  }));

test("memory counts towards the model's limit and comes back", () =>
  withModel(async (model) => {
    await model.forward(tinyBatch());
    const before = model.memory.bytes;
    await assert.rejects(
      model.createAdapter({ rank: 1024, alpha: 1 }),
      isKernelError("COV_KERNELS_MEMORY_LIMIT"),
    );
    const adapter = await model.createAdapter(options);
    await adapter.forward(tinyBatch());
    assert.ok(adapter.memory.bytes > 0);
    assert.equal(model.memory.bytes, before + adapter.memory.bytes);
    await adapter.release();
    assert.equal(adapter.memory.bytes, 0);
    assert.equal(model.memory.bytes, before);
  }, 2 << 20));

test("released while jobs wait, adapters finish these and refuse later ones", () =>
  withModel(async (model) => {
    const adapter = await model.createAdapter(options);
    const view = adapter.parameters;
    const waiting = [1, 2, 3].map(() => adapter.trainStep(tinyBatch(), adamw));
    const released = adapter.release();
    const late = adapter.trainStep(tinyBatch(), adamw);
    await assert.rejects(late, isKernelError("COV_KERNELS_CLOSED"));
    assert.equal((await Promise.all(waiting)).length, 3);
    await released;
    await adapter.release();
    await assert.rejects(adapter.merge(), isKernelError("COV_KERNELS_CLOSED"));
    assert.throws(() => adapter.parameters, isKernelError("COV_KERNELS_CLOSED"));
    assert.throws(() => {
      adapter.optimizerStepCount = 1;
    }, isKernelError("COV_KERNELS_CLOSED"));
    assert.ok(view.every(Number.isFinite));
    // A generator made of them goes on with its snapshot, which cannot be taken anew.
    const other = await model.createAdapter(options);
    const generator = await other.createGenerator();
    await other.release();
    assert.equal((await generator.generate(tinyRequest())).tokens.length, 60);
    await assert.rejects(generator.refresh(), isKernelError("COV_KERNELS_CLOSED"));
  }));

test("a step that waits can be cancelled, and closing the model ends everything", () =>
  withModel(async (model) => {
    const adapter = await model.createAdapter(options);
    const controller = new AbortController();
    // Long enough that the step still waits when it is cancelled, on a busy machine too.
    const requests = Array.from({ length: 100 }, () => tinyRequest());
    const first = adapter.generate(requests, { maxBatch: 1 });
    const { signal } = controller;
    const second = adapter.trainStep(tinyBatch(), adamw, { signal });
    controller.abort();
    await assert.rejects(second, isKernelError("COV_KERNELS_CANCELLED"));
    await first;
    await assert.rejects(
      adapter.trainStep(tinyBatch(), adamw, { signal }),
      isKernelError("COV_KERNELS_CANCELLED"),
    );
    assert.equal(adapter.optimizerStepCount, 0);
    model.close();
    await assert.rejects(
      adapter.trainStep(tinyBatch(), adamw),
      isKernelError("COV_KERNELS_CLOSED"),
    );
    await adapter.release();
  }));

test("bad options are refused in a sentence", () =>
  withModel(async (model) => {
    const invalid = isKernelError("COV_KERNELS_INVALID_ARGUMENT");
    const wrong: Record<string, unknown>[] = [
      { rank: 0 },
      { rank: 1025 },
      { rank: 1.5 },
      { rank: Number.NaN },
      { alpha: 0 },
      { alpha: Number.NaN },
      { alpha: "2" },
      { targets: [] },
      { targets: ["w"] },
      { seed: -1n },
      { seed: 1 },
    ];
    for (const part of wrong) {
      const bad = { ...options, ...part } as AdapterOptions;
      await assert.rejects(model.createAdapter(bad), invalid, JSON.stringify(Object.keys(part)));
    }
    const adapter = await model.createAdapter(options);
    const merge = { reversible: "yes" } as unknown as { reversible: boolean };
    await assert.rejects(adapter.merge(merge), invalid);
    await assert.rejects(adapter.optimizerStep({ ...adamw, beta1: Number.NaN }), invalid);
    await assert.rejects(adapter.unmerge(), isKernelError("COV_KERNELS_FAILED_PRECONDITION"));
  }));
