// Who may do what, limits, and requests that make no sense.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { clone } from "@bufbuild/protobuf";
import { uploadCheckpoint } from "@covenant/checkpoints";
import { signMessage } from "@covenant/contracts";
import {
  CheckpointKind,
  CheckpointManifestSchema,
  CheckpointStage,
} from "@covenant/contracts/registry";
import { describe, filesOf, hotkeyOf, openWorld, startTestRegistry } from "./testing/harness.ts";

const world = await openWorld();
after(() => world.close());
let count = 0;
const start = async (t: TestContext, limits: Record<string, number> = {}) => {
  const dataDirectory = join(world.directory, `p${count++}`);
  const registry = await startTestRegistry(world, { dataDirectory, limits });
  t.after(() => registry.stop());
  return registry;
};
const files = filesOf([{ seed: 1, bytes: 100 }]);

test("participants upload what they signed, and neither release nor manage", async (t) => {
  const registry = await start(t);
  const hotkey = hotkeyOf(5);
  const participant = registry.asHotkey(hotkey);
  const foreign = participant.beginUpload({ manifest: describe(files, {}, hotkeyOf(6)) });
  await assert.rejects(foreign, { code: "COV_CHECKPOINT_SIGNATURE" });
  const release = describe(files, { stage: CheckpointStage.RELEASE }, hotkey);
  const released = participant.beginUpload({ manifest: release });
  await assert.rejects(released, { code: "COV_PERMISSION_DENIED" });
  const { root } = await uploadCheckpoint(participant, files, describe(files, {}, hotkey));
  const denied = [
    participant.pin({ root, pinned: true }),
    participant.prune({ runId: "run", keepNewest: 1 }),
    participant.verify({ root }),
    registry.as("console").beginUpload({ manifest: describe(files) }),
  ];
  for (const call of denied) await assert.rejects(call, { code: "COV_PERMISSION_DENIED" });
});

test("a participant that is first does not keep the operator's services out", async (t) => {
  const registry = await start(t);
  const hotkey = hotkeyOf(5);
  const early = describe(files, { version: 7 }, hotkey);
  const squatted = await uploadCheckpoint(registry.asHotkey(hotkey), files, early);
  const genuine = describe(files, { version: 8 });
  const service = registry.as("gauntlet-validator");
  const { sequence } = await uploadCheckpoint(service, files, genuine);
  assert.ok(sequence > squatted.sequence);
  const { manifest } = await service.getManifest({ root: genuine.root });
  assert.equal(manifest?.version, 8);
  const again = uploadCheckpoint(registry.asHotkey(hotkey), files, early);
  await assert.rejects(again, { code: "COV_CHECKPOINT_ROOT_TAKEN" });
  assert.equal((await registry.as("operator").verify({ root: genuine.root })).intact, true);
});

test("limits on uploads are named when they are reached", async (t) => {
  const registry = await start(t, {
    maxCheckpointBytes: 1000,
    maxOpenUploads: 2,
    maxOpenUploadsPerCaller: 1,
    maxStoredBytes: 1500,
  });
  const client = registry.as("gauntlet-validator");
  const begin = (name: string, seed: number, bytes = 100) =>
    registry.as(name).beginUpload({ manifest: describe(filesOf([{ seed, bytes }])) });
  const large = begin("gauntlet-validator", 1, 1001);
  await assert.rejects(large, { code: "COV_CHECKPOINT_TOO_LARGE" });
  const stored = filesOf([{ seed: 1, bytes: 900 }]);
  await uploadCheckpoint(client, stored, describe(stored));
  const beyond = begin("gauntlet-validator", 2, 700);
  await assert.rejects(beyond, { code: "COV_RESOURCE_EXHAUSTED" });
  await begin("gauntlet-validator", 3);
  await begin("gauntlet-validator", 3);
  const second = begin("gauntlet-validator", 4);
  await assert.rejects(second, { code: "COV_CHECKPOINT_UPLOADS_LIMIT" });
  await begin("grail-rl", 5);
  await assert.rejects(begin("operator", 6), { code: "COV_CHECKPOINT_UPLOADS_LIMIT" });
});

test("limits on streams are named, and places are given back", async (t) => {
  const registry = await start(t, { maxWatchers: 1, maxStreams: 1 });
  const client = registry.as("gauntlet-validator");
  const manifest = describe(files);
  await uploadCheckpoint(client, files, manifest);
  const first = client.watchCheckpoints({})[Symbol.asyncIterator]();
  await first.next();
  const second = client.watchCheckpoints({})[Symbol.asyncIterator]().next();
  await assert.rejects(second, { code: "COV_RESOURCE_EXHAUSTED" });
  for (let i = 0; i < 3; i++) {
    for await (const _ of client.streamCheckpoint({ root: manifest.root }));
  }
});

test("requests that make no sense are refused with a code, and the registry goes on", async (t) => {
  const registry = await start(t);
  const client = registry.as("operator");
  const manifest = describe(files);
  await uploadCheckpoint(client, files, manifest);
  const { root } = manifest;
  const drain = async (stream: AsyncIterable<unknown>): Promise<void> => {
    for await (const _ of stream);
  };
  const delta = clone(CheckpointManifestSchema, manifest);
  delta.kind = CheckpointKind.DELTA;
  delta.signature = signMessage(CheckpointManifestSchema, delta, hotkeyOf(1));
  const unsigned = clone(CheckpointManifestSchema, manifest);
  delete unsigned.signature;
  const evil = clone(CheckpointManifestSchema, manifest);
  evil.files[0]!.path = "../../../etc/cron.d/x";
  async function* nothing() {}
  const invalid = "COV_INVALID_ARGUMENT";
  const cases: [string, () => Promise<unknown>][] = [
    [invalid, () => client.beginUpload({})],
    ["COV_CHECKPOINT_DELTA_UNSUPPORTED", () => client.beginUpload({ manifest: delta })],
    ["COV_CHECKPOINT_MANIFEST_INVALID", () => client.beginUpload({ manifest: unsigned })],
    ["COV_CHECKPOINT_MANIFEST_INVALID", () => client.beginUpload({ manifest: evil })],
    ["COV_CHECKPOINT_UPLOAD_UNKNOWN", () => client.commitCheckpoint({ uploadId: "" })],
    ["COV_CHECKPOINT_UPLOAD_UNKNOWN", () => client.commitCheckpoint({ uploadId: "'; DROP" })],
    [invalid, () => client.getManifest({ root: new Uint8Array(31) })],
    ["COV_CHECKPOINT_NOT_FOUND", () => client.getManifest({ root: new Uint8Array(32) })],
    [invalid, () => drain(client.streamCheckpoint({}))],
    [invalid, () => drain(client.streamCheckpoint({ root, haveBitmap: new Uint8Array(2) }))],
    [invalid, () => drain(client.watchCheckpoints({ afterSequence: 2n ** 64n - 1n }))],
    [invalid, () => client.listCheckpoints({ pageToken: "before-9999999999999999999" })],
    ["COV_CHECKPOINT_NOT_FOUND", () => client.pin({ root: new Uint8Array(32), pinned: true })],
    ["COV_CHECKPOINT_NOT_FOUND", () => client.verify({ root: new Uint8Array(32) })],
  ];
  for (const [code, call] of cases) await assert.rejects(call, { code });
  assert.equal((await client.putChunks(nothing())).storedChunks, 0);
  assert.equal((await client.listCheckpoints({ pageSize: 2 ** 31 })).checkpoints.length, 1);
});
