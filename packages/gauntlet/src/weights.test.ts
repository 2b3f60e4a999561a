import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { computeWeights, WEIGHT_RULES } from "./weights.ts";

const scoresOf = (values: readonly number[]) =>
  new Map(values.map((value, index) => [`peer${String(index).padStart(3, "0")}`, value]));

test("twenty peers share on a 2:1 ramp", () => {
  const { shares } = computeWeights(scoresOf(Array.from({ length: 20 }, (_, i) => 20 - i)));
  const values = [...shares.values()];
  assert.equal(values.length, 20);
  assert.ok(Math.abs(values[0]! / values[19]! - 2) < 1e-12);
});

test("the reserve halves from peer to peer and never passes the top group", () => {
  const { shares } = computeWeights(scoresOf(Array.from({ length: 40 }, (_, i) => 40 - i)));
  const values = [...shares.values()];
  assert.equal(values.length, 30, "ten peers beyond top and reserve get nothing");
  assert.ok(values[20]! <= values[19]! + 1e-15);
  assert.ok(Math.abs(values[21]! / values[20]! - 0.5) < 1e-12);
});

test("nobody positive: everything is burnt", () => {
  assert.deepEqual(computeWeights(scoresOf([0, -1, Number.NaN])), { shares: new Map(), burn: 1 });
});

test("shares are positive, ordered by score and sum to what is not burnt", () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -10, max: 100, noNaN: true }), { maxLength: 60 }),
      fc.double({ min: 0, max: 0.9, noNaN: true }),
      (values, burnShare) => {
        const { shares, burn } = computeWeights(scoresOf(values), { ...WEIGHT_RULES, burnShare });
        const total = [...shares.values()].reduce((sum, share) => sum + share, 0) + burn;
        assert.ok(Math.abs(total - 1) < 1e-9);
        const scores = scoresOf(values);
        const ranked = [...shares].map(([hotkey]) => scores.get(hotkey)!);
        assert.deepEqual(
          ranked,
          [...ranked].sort((a, b) => b - a),
        );
        assert.ok(ranked.every((score) => score > 0));
      },
    ),
  );
});
