import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { difference, estimate, pairedImprovement, studentQuantile } from "./statistics.ts";

test("Student quantiles match published tables", () => {
  const table: [number, number, number][] = [
    [0.975, 1, 12.706],
    [0.975, 7, 2.3646],
    [0.95, 15, 1.7531],
    [0.995, 30, 2.75],
    [0.9995, 14, 4.1405],
    [0.975, 1000, 1.9623],
  ];
  for (const [p, freedom, expected] of table) {
    const relative = Math.abs(studentQuantile(p, freedom) / expected - 1);
    assert.ok(relative < 2e-4, `t(${p}, ${freedom}) = ${studentQuantile(p, freedom)}`);
  }
});

test("pairing removes what differs between samples", () => {
  const before = [1, 5, 9, 13];
  const after = before.map((loss) => loss - 0.1);
  const improvement = pairedImprovement(before, after, 0.9);
  assert.ok(Math.abs(improvement.mean - 0.1) < 1e-12);
  assert.ok(improvement.halfWidth < 1e-12);
});

test("one pair gives no confidence, unequal or non-finite input is refused", () => {
  assert.equal(pairedImprovement([2], [1], 0.9).halfWidth, Number.POSITIVE_INFINITY);
  assert.throws(() => pairedImprovement([1, 2], [1], 0.9), RangeError);
  assert.throws(() => pairedImprovement([Number.NaN], [1], 0.9), RangeError);
});

test("the interval covers the true mean about as often as it says", () => {
  // A fixed congruential generator: the claim is about many draws, not about one lucky seed.
  let state = 12345;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  let covered = 0;
  const runs = 2000;
  for (let run = 0; run < runs; run += 1) {
    const sample = Array.from({ length: 8 }, () => 0.3 + normal());
    const { mean, halfWidth } = estimate(sample, 0.9);
    if (Math.abs(mean - 0.3) <= halfWidth) covered += 1;
  }
  assert.ok(covered / runs > 0.87 && covered / runs < 0.93, `covered ${covered / runs}`);
});

test("the difference of two estimates changes sign with their order", () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 2, maxLength: 20 }),
      fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 2, maxLength: 20 }),
      (xs, ys) => {
        const [a, b] = [estimate(xs, 0.9), estimate(ys, 0.9)];
        const [ab, ba] = [difference(a, b, 0.99), difference(b, a, 0.99)];
        assert.equal(ab.mean + ba.mean, 0);
        assert.ok(Math.abs(ab.halfWidth - ba.halfWidth) <= 1e-9 * (1 + ab.halfWidth));
      },
    ),
  );
});
