import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeContainer, encodeContainer, floatBytes, floatsOf } from "./container.ts";

const sections = new Map([
  ["a", Uint8Array.of(1, 2, 3)],
  ["b", new Uint8Array(0)],
  ["c", floatBytes(Float32Array.of(1.5, -0, Number.NaN))],
]);
const encoded = encodeContainer({ header: { round: 7 }, sections });

test("a container comes back as it was", () => {
  const decoded = decodeContainer<{ round: number }>(encoded);
  assert.deepEqual(decoded.header, { round: 7 });
  assert.deepEqual([...decoded.sections.keys()], ["a", "b", "c"]);
  assert.deepEqual(Buffer.from(decoded.sections.get("a")!), Buffer.from([1, 2, 3]));
  const floats = floatsOf(decoded.sections.get("c")!, 3);
  assert.ok(Object.is(floats[1], -0) && Number.isNaN(floats[2]));
});

test("any changed byte and any cut is noticed", () => {
  fc.assert(
    fc.property(fc.nat(encoded.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const damaged = encoded.slice();
      damaged[at]! ^= mask;
      assert.throws(() => decodeContainer(damaged), Error);
      assert.throws(() => decodeContainer(encoded.subarray(0, at)), Error);
    }),
  );
});

test("a float section of another length is refused", () => {
  assert.throws(() => floatsOf(new Uint8Array(8), 3), /expected 3 values/);
});
