import assert from "node:assert/strict";
import { test } from "node:test";
import { clone, create, fromJson } from "@bufbuild/protobuf";
import * as scure from "@scure/sr25519";
import fc from "fast-check";
import vectors from "../../../test/vectors/contracts/signatures.json" with { type: "json" };
import { fromHex, toHex } from "./hash.ts";
import { hotkeyFromSeed, signMessage, verifyMessage, verifySignature } from "./hotkey.ts";
import { CheckpointManifestSchema } from "./proto/registry.ts";
import { pairFromSeed, SUBSTRATE_CONTEXT, signWithContext, verifyWithContext } from "./sr25519.ts";
import { ss58Decode, ss58Encode } from "./ss58.ts";

const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const alice = hotkeyFromSeed(fromHex(vectors.alice.seed));

test("Alice is who she is everywhere in the Substrate world", () => {
  assert.equal(alice.address, "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
  const publicKey = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
  assert.equal(toHex(alice.publicKey), publicKey);
});

test("under Substrate's own context, bytes are those of the audited implementation", () => {
  fc.assert(
    fc.property(bytes32, bytes32, fc.uint8Array({ maxLength: 700 }), (seed, random, message) => {
      const pair = pairFromSeed(seed);
      const ours = signWithContext(SUBSTRATE_CONTEXT, pair, message, random);
      assert.deepEqual(ours, scure.sign(pair.secretKey, message, random));
      assert.ok(scure.verify(message, ours, pair.publicKey));
      assert.ok(verifyWithContext(SUBSTRATE_CONTEXT, pair.publicKey, message, ours));
    }),
    { numRuns: 20 },
  );
});

test("signatures hold for their bytes, key and context only, and are the same every time", () => {
  const message = new TextEncoder().encode("window 7");
  const signature = alice.sign(message);
  assert.deepEqual(alice.sign(message), signature);
  assert.ok(verifySignature(alice.address, message, signature));
  assert.ok(!verifySignature(alice.address, message.subarray(1), signature));
  const bob = hotkeyFromSeed(new Uint8Array(32).fill(2));
  assert.ok(!verifySignature(bob.address, message, signature));
  assert.ok(!verifyWithContext(SUBSTRATE_CONTEXT, alice.publicKey, message, signature));
  assert.ok(!verifySignature("5Grw", message, signature));
});

test("a flipped bit anywhere in a signature is noticed", () => {
  const message = Uint8Array.of(1, 2, 3);
  const signature = alice.sign(message);
  fc.assert(
    fc.property(fc.nat(511), (bit) => {
      const bad = signature.slice();
      bad[bit >> 3]! ^= 1 << (bit & 7);
      assert.ok(!verifySignature(alice.address, message, bad));
    }),
    { numRuns: 40 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), (noise) => {
      assert.ok(!verifySignature(alice.address, message, noise));
    }),
    { numRuns: 40 },
  );
});

test("a signed message holds until any other field changes", () => {
  const message = create(CheckpointManifestSchema, { runId: "r", evaluation: { a: 1, "9": 2 } });
  assert.ok(!verifyMessage(CheckpointManifestSchema, message));
  message.signature = signMessage(CheckpointManifestSchema, message, alice);
  assert.ok(verifyMessage(CheckpointManifestSchema, message));
  assert.equal(message.signature.hotkey, alice.address);
  const changed = clone(CheckpointManifestSchema, message);
  changed.evaluation.a = 2;
  assert.ok(!verifyMessage(CheckpointManifestSchema, changed));
  const again = signMessage(CheckpointManifestSchema, message, alice);
  assert.deepEqual(again.value, message.signature.value);
});

test("addresses round-trip, and typing errors are noticed", () => {
  fc.assert(
    fc.property(bytes32, fc.nat(47), fc.constantFrom(..."123456789ABCxyz"), (key, at, letter) => {
      const address = ss58Encode(key);
      assert.deepEqual(ss58Decode(address), key);
      const typo = address.slice(0, at) + letter + address.slice(at + 1);
      if (typo !== address) assert.throws(() => ss58Decode(typo), RangeError);
    }),
  );
  assert.throws(() => ss58Decode(`${alice.address}0`), RangeError);
  assert.throws(() => ss58Decode("1".repeat(10_000)), RangeError);
  assert.throws(() => ss58Encode(new Uint8Array(31)), RangeError);
});

test("published vectors hold", () => {
  for (const { message, signature } of vectors.bytes) {
    assert.equal(toHex(alice.sign(fromHex(message))), signature);
  }
  const message = fromJson(CheckpointManifestSchema, vectors.message.json);
  const value = fromHex(vectors.message.value);
  assert.deepEqual(signMessage(CheckpointManifestSchema, message, alice).value, value);
});
