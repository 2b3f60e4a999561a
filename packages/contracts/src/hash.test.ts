import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 as portable } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { bytesEqual, concatBytes, fromHex, sha256, toHex } from "./hash.ts";

test("the fast and the portable SHA-256 agree, whole or in parts", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 300 }), (a, b) => {
      assert.deepEqual(sha256(a, b), portable(concatBytes(a, b)));
    }),
  );
  const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  assert.equal(toHex(sha256(new TextEncoder().encode("abc"))), abc);
});

test("hexadecimal text round-trips and anything else is refused", () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      assert.deepEqual(fromHex(toHex(bytes)), bytes);
      assert.deepEqual(fromHex(toHex(bytes).toUpperCase()), bytes);
    }),
  );
  for (const bad of ["0", "0g", " 00", "0x00"]) assert.throws(() => fromHex(bad), RangeError);
});

test("comparison sees length and every byte", () => {
  assert.ok(bytesEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 2)));
  assert.ok(!bytesEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 3)));
  assert.ok(!bytesEqual(Uint8Array.of(1, 2), Uint8Array.of(1)));
});
