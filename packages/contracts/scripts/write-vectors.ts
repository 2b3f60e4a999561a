/**
 * Writes test/vectors/contracts/*.json: what an implementation in another language must reproduce.
 * Philox blocks are Random123's published known answers and Alice's key is Substrate's, so neither
 * is derived from the code under test. Run: node packages/contracts/scripts/write-vectors.ts
 */
import { mkdir, writeFile } from "node:fs/promises";
import { fromJson, toJson } from "@bufbuild/protobuf";
import type { Signature } from "../src/gen/covenant/common/v1/common_pb.ts";
import {
  type CheckpointManifest,
  CheckpointManifestSchema,
} from "../src/gen/covenant/registry/v1/registry_pb.ts";
import {
  canonicalBytes,
  fromHex,
  hotkeyFromSeed,
  merklePath,
  merkleRoot,
  sha256,
  signMessage,
  toHex,
  uniformAt,
} from "../src/index.ts";

const DIRECTORY = new URL("../../../test/vectors/contracts/", import.meta.url);
const COMMAND = "node packages/contracts/scripts/write-vectors.ts";
const ALICE_SEED = "e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";

const RANDOM123 = [
  { key: [0, 0], counter: [0, 0, 0, 0], output: "6627e8d5e169c58dbc57ac4c9b00dbd8" },
  {
    key: [0xffffffff, 0xffffffff],
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    output: "408f276d41c83b0ea20bc7c66d5451fd",
  },
  {
    key: [0xa4093822, 0x299f31d0],
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    output: "d16cfe0994fdcceb5001e42024126ea1",
  },
];

function philox(): object {
  const seed = sha256(new TextEncoder().encode("covenant"));
  const indices = [0, 1, 2, 1000, 0xffffffff];
  const uniform = indices.map((index) => ({ index, value: uniformAt(seed, index) }));
  return { blocks: RANDOM123, uniform: { seed: toHex(seed), values: uniform } };
}

function merkle(): object {
  const trees = [0, 1, 2, 3, 5, 8, 13].map((count) => {
    const items = Array.from({ length: count }, (_, i) => Uint8Array.of(i, count));
    const paths = items.map((_, index) => merklePath(items, index).map(toHex));
    return { items: items.map(toHex), root: toHex(merkleRoot(items)), paths };
  });
  return { trees };
}

function manifest(): CheckpointManifest {
  return fromJson(CheckpointManifestSchema, {
    runId: "run-1",
    kind: "CHECKPOINT_KIND_FULL",
    stage: "CHECKPOINT_STAGE_RELEASE",
    version: 7,
    files: [
      { path: "model.safetensors", sizeBytes: "18446744073709551615", chunkSha256: ["AAEC"] },
    ],
    evaluation: { "10": 1.5, "9": -0.25, ä: 0, zeta: 1e300, "": 2 },
    createdAtMs: "-1",
  });
}

function canonical(): object {
  const message = manifest();
  const bytes = canonicalBytes(CheckpointManifestSchema, message);
  const json = toJson(CheckpointManifestSchema, message);
  return { cases: [{ type: CheckpointManifestSchema.typeName, json, bytes: toHex(bytes) }] };
}

function signatures(): object {
  const alice = hotkeyFromSeed(fromHex(ALICE_SEED));
  const message = manifest();
  const signature: Signature = signMessage(CheckpointManifestSchema, message, alice);
  return {
    context: "covenant",
    alice: { seed: ALICE_SEED, publicKey: toHex(alice.publicKey), address: alice.address },
    bytes: [{ message: "", signature: toHex(alice.sign(new Uint8Array())) }],
    message: {
      type: CheckpointManifestSchema.typeName,
      json: toJson(CheckpointManifestSchema, message),
      hotkey: signature.hotkey,
      value: toHex(signature.value),
    },
  };
}

await mkdir(DIRECTORY, { recursive: true });
for (const [name, content] of Object.entries({
  philox: philox(),
  merkle: merkle(),
  canonical: canonical(),
  signatures: signatures(),
})) {
  const file = { magic: `covenant.vectors.${name}`, version: 1, command: COMMAND, ...content };
  await writeFile(new URL(`${name}.json`, DIRECTORY), `${JSON.stringify(file, null, 2)}\n`);
}
