import assert from "node:assert/strict";
import { test } from "node:test";
import { Projection, type ProjectionOptions } from "./index.ts";
import { isKernelError, noise } from "./test-support.ts";

const invalid = isKernelError("COV_KERNELS_INVALID_ARGUMENT");

const width = 24;
const rank = 5;
const vocab = 7;
const rows = 6;
const tokens = Int32Array.from({ length: rows }, (_, i) => (i * 3) % vocab);

const create = (more: Partial<ProjectionOptions> = {}) =>
  Projection.create({ width, rank, seed: 3n, table: noise(vocab * width, 1, 4), ...more });

const distance = (a: Float32Array, b: Float32Array) =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));

/** Largest deviation of the products of columns from those of an orthonormal basis. */
function skewness({ basis }: Projection): number {
  let most = 0;
  for (let a = 0; a < rank; a++) {
    for (let b = 0; b < rank; b++) {
      let dot = 0;
      for (let i = 0; i < width; i++) dot += basis[i * rank + a]! * basis[i * rank + b]!;
      most = Math.max(most, Math.abs(dot - (a === b ? 1 : 0)));
    }
  }
  return most;
}

test("the basis is orthonormal and that of its seed; the subspace comes back exact", async () => {
  const projection = await create();
  assert.ok(skewness(projection) < 1e-5);
  assert.deepEqual((await create()).basis, projection.basis);
  assert.notDeepEqual((await create({ seed: 4n })).basis, projection.basis);
  const inside = await projection.decode(noise(rows * rank, 1, 5), tokens);
  const z = await projection.encode(inside, tokens);
  assert.ok(distance(await projection.decode(z, tokens), inside) < 1e-5);
  const two = await create({ threads: 2 });
  assert.deepEqual(await two.encode(inside, tokens), z);
});

test("backward of both ends agrees with central differences", async () => {
  const projection = await create();
  const { basis, table, basisGradient, tableGradient } = projection;
  assert.ok(table && tableGradient);
  const x = noise(rows * width, 1, 6);
  const weights = noise(rows * width, 1, 7);
  const loss = async () => {
    const y = await projection.decode(await projection.encode(x, tokens), tokens);
    return y.reduce((sum, value, i) => sum + value * weights[i]!, 0);
  };
  const z = await projection.encode(x, tokens);
  const dz = await projection.decodeBackward(weights, z, tokens);
  const dx = await projection.encodeBackward(dz, x, tokens);
  for (const [values, gradient] of [
    [x, dx],
    [basis, basisGradient],
    [table, tableGradient],
  ] as const) {
    for (let check = 0; check < 12; check++) {
      const i = (check * 7919) % values.length;
      const at = values[i]!;
      values[i] = at + 0.01;
      const up = await loss();
      values[i] = at - 0.01;
      const expected = (up - (await loss())) / 0.02;
      values[i] = at;
      const found = gradient[i]!;
      assert.ok(
        Math.abs(found - expected) < 0.02 + 0.02 * Math.abs(expected),
        `${found} ${expected}`,
      );
    }
  }
  const before = basisGradient.slice();
  assert.deepEqual(await projection.decodeBackward(weights, z, tokens, { frozen: true }), dz);
  assert.deepEqual(await projection.encodeBackward(dz, x, tokens, { frozen: true }), dx);
  assert.deepEqual(basisGradient, before);
});

test("a learned basis finds the subspace of what it sends", async () => {
  const teacher = await Projection.create({ width, rank, seed: 11n });
  const learner = await Projection.create({ width, rank, seed: 12n });
  let first = 0;
  let last = 0;
  for (let step = 0; step < 200; step++) {
    const x = await teacher.decode(noise(32 * rank, 0.2, step + 20));
    const z = await learner.encode(x);
    const y = await learner.decode(z);
    const dy = y.map((value, i) => (value - x[i]!) / 32);
    last = dy.reduce((sum, value) => sum + value * value, 0);
    if (step === 0) first = last;
    await learner.encodeBackward(await learner.decodeBackward(dy, z), x);
    await learner.step({ rate: 1, decay: 0.5 });
  }
  assert.ok(last < 0.05 * first, `${first} ${last}`);
  assert.ok(skewness(learner) < 1e-5);
  assert.ok(learner.basisGradient.every((value) => value === 0));
});

test("what does not fit is refused in a sentence", async () => {
  const projection = await create();
  const x = new Float32Array(rows * width);
  await assert.rejects(projection.encode(new Float32Array(width + 1), tokens), invalid);
  await assert.rejects(projection.encode(x), invalid);
  await assert.rejects(projection.encode(x, tokens.slice(1)), invalid);
  await assert.rejects(projection.encode([1] as unknown as Float32Array, tokens), invalid);
  await assert.rejects(
    projection.encode(
      x,
      tokens.map(() => vocab),
    ),
    isKernelError("COV_KERNELS_OUT_OF_RANGE"),
  );
  await assert.rejects(projection.decodeBackward(x, x, tokens), invalid);
  await assert.rejects(
    create({ table: new Float32Array(width + 1) }).then((p) => p.encode(x, tokens)),
    invalid,
  );
  for (const wrong of [
    { rank: 0 },
    { rank: 25 },
    { width: 1.5 },
    { width: 2 ** 21 },
    { seed: -1n },
  ]) {
    await assert.rejects(create(wrong), invalid);
  }
  projection.basisGradient.fill(Number.NaN);
  const before = projection.basis.slice();
  await assert.rejects(projection.step({ rate: 1 }), isKernelError("COV_KERNELS_NON_FINITE"));
  await assert.rejects(projection.step({ rate: "1" as unknown as number }), invalid);
  assert.deepEqual(projection.basis, before);
  assert.equal((await projection.encode(new Float32Array(), new Int32Array())).length, 0);
});
