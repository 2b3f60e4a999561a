import assert from "node:assert/strict";
import { test } from "node:test";
import { compress, initialParameters, KernelError, Model, stateRoot } from "./index.ts";
import { adamw, tinyBatch, tinyRequest, tinyShape } from "./test-support.ts";

// The short Node form of kernels/soak: several models in one process, jobs in flight on all of them at once.

const code = (error: unknown) => (error instanceof KernelError ? error.code : String(error));

/** One turn of a model: trains, is cancelled in mid-generation, generates, replays, compresses, hashes. */
async function turn(model: Model, errorFeedback: Float32Array, seed: number): Promise<void> {
  const base = model.parameters.slice();
  await model.trainStep(tinyBatch(), adamw);

  const abort = new AbortController();
  let tokens = 0;
  const cancelled = model.generate([tinyRequest()], {
    signal: abort.signal,
    onToken: () => {
      if (++tokens === 3) abort.abort();
    },
  });
  // Queued behind the one that is cancelled.
  const sampling = tinyRequest({ maxNewTokens: 12, samplingSeed: new Uint8Array(32).fill(seed) });
  const generating = model.generate([sampling, sampling]);
  const outcome = await cancelled.then(() => "finished", code);
  // The engine may reach the end before JavaScript hears of the third token.
  assert.ok(outcome === "COV_KERNELS_CANCELLED" || outcome === "finished", outcome);

  const [one, two] = await generating;
  assert.deepEqual(one, two);
  assert.ok(one);
  const [again] = await model.replay([{ ...sampling, completion: one.tokens }]);
  assert.deepEqual(again?.drawn, one.tokens);
  assert.deepEqual(again?.logProbs, one.logProbs);

  const { parameters: current, tensors } = model;
  const format = { errorDecay: 0.95, keepPerChunk: 64, mode: "2bit" } as const;
  const [body, root] = await Promise.all([
    compress({ base, current, errorFeedback, tensors, ...format }),
    stateRoot(current, tensors),
  ]);
  assert.ok(body.length > 0 && root.length === 32);
}

test("models in one process work side by side, are cancelled, and hold no more after many turns than after few", async () => {
  const models = await Promise.all(
    [1n, 2n, 3n].map((seed, index) =>
      Model.create(tinyShape, {
        parameters: initialParameters(tinyShape, seed),
        threads: 1 + (index % 2),
        compute: index === 2 ? "bf16" : "f32",
      }),
    ),
  );
  // The longest sequence first: the room for attention grows with it, and how far a cancelled one comes is chance.
  for (const model of models) await model.generate([tinyRequest()]);
  const held: number[][] = [];
  for (let round = 0; round < 12; round++) {
    await Promise.all(
      models.map((model) => turn(model, new Float32Array(model.parameters.length), round)),
    );
    held.push(models.map((model) => model.memory.bytes));
    // One that comes and goes beside them, and one that is refused.
    const passing = await Model.create(tinyShape);
    const last = passing.trainStep(tinyBatch(), adamw);
    passing.close();
    // A step that had been taken up by then was cancelled before it began, or came to its end.
    const ending = await last.then(() => "finished", code);
    assert.match(ending, /^(finished|COV_KERNELS_CLOSED|COV_KERNELS_CANCELLED)$/);
    await assert.rejects(Model.create(tinyShape, { memoryLimitBytes: 4096 }), {
      code: "COV_KERNELS_MEMORY_LIMIT",
    });
  }
  assert.deepEqual(held.at(-1), held[1]);
  for (const model of models) model.close();
});

test("a training step beyond the limit is refused, and what fits works on", async () => {
  const model = await Model.create(tinyShape, {
    parameters: initialParameters(tinyShape, 5n),
    memoryLimitBytes: 4 * 4 * initialParameters(tinyShape, 5n).length,
  });
  const before = model.parameters.slice();
  await assert.rejects(model.trainStep(tinyBatch(), adamw), { code: "COV_KERNELS_MEMORY_LIMIT" });
  assert.deepEqual(model.parameters, before);
  await assert.rejects(model.trainStep(tinyBatch(), adamw), { code: "COV_KERNELS_MEMORY_LIMIT" });
  assert.ok(model.memory.peakBytes <= 4 * 4 * before.length);
  model.close();
});
