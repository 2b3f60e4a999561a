import assert from "node:assert/strict";
import { test } from "node:test";
import { clone, create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { hotkeyFromSeed, merkleRoot, sha256, signMessage } from "@covenant/contracts";
import { SignatureSchema } from "@covenant/contracts/common";
import {
  CheckpointFileSchema,
  CheckpointKind,
  type CheckpointManifest,
  CheckpointManifestSchema,
  CheckpointStage,
} from "@covenant/contracts/registry";
import fc from "fast-check";
import { CHUNK_BYTES, checkpointBytes, chunkPlaces, hasBit, makeBitmap } from "./chunks.ts";
import { CheckpointError } from "./errors.ts";
import { buildManifest, manifestBytes, verifyManifest } from "./manifest.ts";
import { firstBadPath, isSafePath } from "./paths.ts";

const hotkey = hotkeyFromSeed(new Uint8Array(32).fill(7));
const other = hotkeyFromSeed(new Uint8Array(32).fill(8));
const big = Uint8Array.from({ length: CHUNK_BYTES + 5 }, (_, i) => i * 31);
const files = [
  { path: "config.json", data: new TextEncoder().encode("{}") },
  { path: "empty", data: new Uint8Array() },
  { path: "model.safetensors", data: big },
];
const facts = { runId: "run-1", stage: CheckpointStage.PRETRAIN, version: 3, createdAtMs: 1000 };
const manifest = buildManifest(files, facts, hotkey);

test("the root is the Merkle root of the chunk hashes, files in order", () => {
  const chunks = [files[0]!.data, big.subarray(0, CHUNK_BYTES), big.subarray(CHUNK_BYTES)];
  assert.deepEqual(manifest.root, merkleRoot(chunks.map((chunk) => sha256(chunk))));
  const places = chunkPlaces(manifest);
  assert.deepEqual(
    places.map(({ index, path, offset, sizeBytes }) => [index, path, offset, sizeBytes]),
    [
      [0, "config.json", 0, 2],
      [1, "model.safetensors", 0, CHUNK_BYTES],
      [2, "model.safetensors", CHUNK_BYTES, 5],
    ],
  );
  assert.equal(checkpointBytes(manifest), CHUNK_BYTES + 7);
});

test("a manifest survives the wire and verifies for its signer and root only", () => {
  const wire = toBinary(CheckpointManifestSchema, manifest);
  const arrived = fromBinary(CheckpointManifestSchema, wire);
  verifyManifest(arrived, { root: manifest.root, signer: hotkey.address });
  assert.deepEqual(manifestBytes(arrived), manifestBytes(manifest));
  const wrongSigner = { signer: other.address };
  assert.throws(() => verifyManifest(arrived, wrongSigner), { code: "COV_CHECKPOINT_SIGNATURE" });
  const wrongRoot = { root: new Uint8Array(32) };
  assert.throws(() => verifyManifest(arrived, wrongRoot), { code: "COV_CHECKPOINT_WRONG_ROOT" });
});

/** The manifest changed, and signed again so that only the change is wrong. */
function resigned(change: (copy: CheckpointManifest) => void): CheckpointManifest {
  const copy = clone(CheckpointManifestSchema, manifest);
  change(copy);
  copy.signature = signMessage(CheckpointManifestSchema, copy, hotkey);
  return copy;
}

test("any change after signing is noticed", () => {
  const changed = clone(CheckpointManifestSchema, manifest);
  changed.version += 1;
  assert.throws(() => verifyManifest(changed), { code: "COV_CHECKPOINT_SIGNATURE" });
  const renamed = clone(CheckpointManifestSchema, manifest);
  renamed.files[0]!.path = "other.json";
  assert.throws(() => verifyManifest(renamed), { code: "COV_CHECKPOINT_SIGNATURE" });
});

test("signed nonsense is refused by field", () => {
  const cases: [string, (copy: CheckpointManifest) => void][] = [
    ["run_id", (m) => Object.assign(m, { runId: "../x" })],
    ["run_id", (m) => Object.assign(m, { runId: "x".repeat(65) })],
    ["kind", (m) => Object.assign(m, { kind: CheckpointKind.UNSPECIFIED })],
    ["stage", (m) => Object.assign(m, { stage: 0 })],
    ["parent_root", (m) => Object.assign(m, { parentRoot: new Uint8Array(31) })],
    ["licence", (m) => Object.assign(m, { licence: "x".repeat(129) })],
    ["evaluation", (m) => Object.assign(m, { evaluation: { loss: Number.NaN } })],
    ["created_at_ms", (m) => Object.assign(m, { createdAtMs: 0n })],
    ["files", (m) => Object.assign(m, { files: [] })],
    ["path", (m) => Object.assign(m.files[0]!, { path: "../../etc/passwd" })],
    ["path", (m) => Object.assign(m.files[0]!, { path: "MODEL.safetensors" })],
    ["path", (m) => Object.assign(m.files[0]!, { path: "model.safetensors/x" })],
    ["too large", (m) => Object.assign(m.files[0]!, { sizeBytes: 2n ** 63n })],
    ["chunks", (m) => Object.assign(m.files[0]!, { sizeBytes: BigInt(CHUNK_BYTES) + 1n })],
    ["chunks", (m) => Object.assign(m.files[1]!, { chunkSha256: [new Uint8Array(32)] })],
    ["two sizes", (m) => Object.assign(m.files[0]!, { chunkSha256: [m.files[2]!.chunkSha256[0]] })],
    ["hash", (m) => Object.assign(m.files[0]!, { chunkSha256: [new Uint8Array(31)] })],
  ];
  for (const [what, change] of cases) {
    assert.throws(
      () => verifyManifest(resigned(change)),
      (error) => {
        assert.ok(error instanceof CheckpointError);
        assert.equal(error.code, "COV_CHECKPOINT_MANIFEST_INVALID", what);
        return error.message.includes(what);
      },
    );
  }
  const root = resigned((m) => Object.assign(m, { root: new Uint8Array(32) }));
  assert.throws(() => verifyManifest(root), { code: "COV_CHECKPOINT_WRONG_ROOT" });
  const delta = resigned((m) => Object.assign(m, { kind: CheckpointKind.DELTA }));
  assert.throws(() => verifyManifest(delta), { code: "COV_CHECKPOINT_DELTA_UNSUPPORTED" });
});

test("any message that decodes is either a valid manifest or refused with a code", () => {
  const file = fc.record({
    path: fc.oneof(fc.string({ maxLength: 10 }), fc.constant("a")),
    sizeBytes: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    chunkSha256: fc.array(fc.uint8Array({ maxLength: 33 }), { maxLength: 3 }),
  });
  const message = fc.record({
    runId: fc.string({ maxLength: 5 }),
    kind: fc.integer({ min: 0, max: 3 }),
    stage: fc.integer({ min: -1, max: 9 }),
    files: fc.array(file, { maxLength: 3 }),
    root: fc.uint8Array({ maxLength: 33 }),
    createdAtMs: fc.bigInt({ min: -5n, max: 5n }),
    signature: fc.option(
      fc.record({ hotkey: fc.string(), value: fc.uint8Array({ maxLength: 64 }) }),
      { nil: undefined },
    ),
  });
  fc.assert(
    fc.property(message, (fields) => {
      const built = Object.assign(create(CheckpointManifestSchema), {
        ...fields,
        files: fields.files.map((item) => create(CheckpointFileSchema, item)),
        signature: fields.signature && create(SignatureSchema, fields.signature),
      });
      assert.throws(() => verifyManifest(built), CheckpointError);
    }),
  );
});

test("paths that could leave a directory, hide in it or collide in it are unsafe", () => {
  const unsafe = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    "..",
    "a/../b",
    ".",
    ".git/config",
    "a/.b",
    "a\\b",
    "C:a",
  ];
  for (const path of [
    ...unsafe,
    "a\0",
    "a b",
    "é",
    "a.",
    "-rf",
    "x".repeat(256),
    `${"a/".repeat(8)}a`,
  ]) {
    assert.equal(isSafePath(path), false, path);
  }
  for (const path of ["a", "model-00001-of-00002.safetensors", "a/b.c/d_e", "_x"]) {
    assert.equal(isSafePath(path), true, path);
  }
  assert.equal(firstBadPath(["a", "b/c", "b/d"]), undefined);
  assert.equal(firstBadPath(["a", "A"]), "A");
  assert.equal(firstBadPath(["b/c", "B"]), "B");
});

test("a bitmap holds exactly the bits put into it", () => {
  const sets = fc.uniqueArray(fc.nat({ max: 40 }), { maxLength: 20 });
  fc.assert(
    fc.property(sets, (indices) => {
      const bitmap = makeBitmap(indices, 41);
      const held = Array.from({ length: 64 }, (_, i) => i).filter((i) => hasBit(bitmap, i));
      assert.deepEqual(
        held,
        [...indices].sort((a, b) => a - b),
      );
    }),
  );
  assert.throws(() => makeBitmap([41], 41), RangeError);
});
