import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import vectors from "../../../test/vectors/contracts/philox.json" with { type: "json" };
import { fromHex, sha256 } from "./hash.ts";
import type { PhiloxBlock, PhiloxKey } from "./philox.ts";
import { philox4x32, uniformAt } from "./philox.ts";

test("Random123's known answers", () => {
  assert.equal(vectors.blocks.length, 3);
  for (const { key, counter, output } of vectors.blocks) {
    const block = philox4x32(key as unknown as PhiloxKey, counter as PhiloxBlock);
    assert.equal(block.map((word) => word.toString(16).padStart(8, "0")).join(""), output);
  }
});

test("uniform numbers are those of the vectors and lie strictly between 0 and 1", () => {
  const seed = fromHex(vectors.uniform.seed);
  for (const { index, value } of vectors.uniform.values)
    assert.equal(uniformAt(seed, index), value);
  const anySeed = fc.uint8Array({ minLength: 32, maxLength: 32 });
  fc.assert(
    fc.property(anySeed, fc.nat(0xffffffff), (seed, index) => {
      const u = uniformAt(seed, index);
      assert.ok(u > 0 && u < 1);
      const [x0] = philox4x32(
        [
          new DataView(seed.buffer).getUint32(0, true),
          new DataView(seed.buffer).getUint32(4, true),
        ],
        [
          index,
          0,
          new DataView(seed.buffer).getUint32(8, true),
          new DataView(seed.buffer).getUint32(12, true),
        ],
      );
      assert.equal(u * 2 ** 32 - 0.5, x0);
    }),
  );
});

test("means and variances are those of a uniform distribution", () => {
  const seed = sha256(Uint8Array.of(7));
  const draws = Array.from({ length: 4000 }, (_, index) => uniformAt(seed, index));
  const mean = draws.reduce((sum, u) => sum + u, 0) / draws.length;
  const variance = draws.reduce((sum, u) => sum + (u - mean) ** 2, 0) / draws.length;
  // Five standard errors: 5 / sqrt(12 · 4000) and likewise for the variance.
  assert.ok(Math.abs(mean - 0.5) < 0.023, `mean ${mean}`);
  assert.ok(Math.abs(variance - 1 / 12) < 0.006, `variance ${variance}`);
});

test("short seeds and indices beyond 32 bits are refused", () => {
  assert.throws(() => uniformAt(new Uint8Array(16), 0), RangeError);
  assert.throws(() => uniformAt(new Uint8Array(32), 2 ** 32), RangeError);
  assert.throws(() => uniformAt(new Uint8Array(32), -1), RangeError);
});
