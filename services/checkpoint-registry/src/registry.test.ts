// The registry over TLS: upload, publish, stream, list, pin, prune, verify.
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { CHUNK_BYTES, receiveCheckpoint, uploadCheckpoint } from "@covenant/checkpoints";
import { CheckpointStage } from "@covenant/contracts/registry";
import {
  contentOf,
  describe,
  filesOf,
  hotkeyOf,
  openWorld,
  startTestRegistry,
  type TestRegistryOptions,
} from "./testing/harness.ts";

const world = await openWorld();
after(() => world.close());
let count = 0;
const newDirectory = (): string => join(world.directory, `d${count++}`);
const start = async (t: TestContext, options: Partial<TestRegistryOptions> = {}) => {
  const registry = await startTestRegistry(world, { dataDirectory: newDirectory(), ...options });
  t.after(() => registry.stop());
  return registry;
};

const small = filesOf([
  { seed: 1, bytes: 100 },
  { seed: 2, bytes: 2 * CHUNK_BYTES + 7 },
  { seed: 3, bytes: 0 },
]);

test("what is uploaded is received, byte for byte, by a participant with nothing but the root", async (t) => {
  const registry = await start(t);
  const manifest = describe(small);
  const result = await uploadCheckpoint(registry.as("gauntlet-validator"), small, manifest);
  assert.deepEqual(result.root, manifest.root);
  assert.equal(result.sentChunks, 4);
  const directory = newDirectory();
  const received = await receiveCheckpoint(registry.asHotkey(hotkeyOf(9)), manifest.root, {
    directory,
    signer: hotkeyOf(1).address,
  });
  assert.deepEqual(received.files, ["part-0.bin", "part-1.bin", "part-2.bin"]);
  assert.equal(received.resumedChunks, 0);
  for (const { path, data } of small) {
    assert.deepEqual(await readFile(join(directory, path)), Buffer.from(data));
  }
  const again = await receiveCheckpoint(registry.as("operator"), manifest.root, { directory });
  assert.equal(again.resumedChunks, 4);
});

test("uploading again sends nothing and gives the same place in the sequence", async (t) => {
  const registry = await start(t);
  const client = registry.as("gauntlet-validator");
  const first = await uploadCheckpoint(client, small, describe(small));
  const later = describe(small, { createdAtMs: 99 });
  const second = await uploadCheckpoint(client, small, later);
  assert.equal(second.sentChunks, 0);
  assert.equal(second.sequence, first.sequence);
  const taken = uploadCheckpoint(client, small, describe(small, { version: 2 }));
  await assert.rejects(taken, { code: "COV_CHECKPOINT_ROOT_TAKEN" });
});

test("commit is idempotent, only for the uploader, and only when complete", async (t) => {
  const registry = await start(t);
  const client = registry.as("gauntlet-validator");
  const manifest = describe(small);
  const { uploadId, missing } = await client.beginUpload({ manifest });
  assert.equal(missing.length, 4);
  const early = client.commitCheckpoint({ uploadId });
  await assert.rejects(early, { code: "COV_CHECKPOINT_INCOMPLETE" });
  const unseen = client.getManifest({ root: manifest.root });
  await assert.rejects(unseen, { code: "COV_CHECKPOINT_NOT_FOUND" });
  const other = registry.as("grail-rl").commitCheckpoint({ uploadId });
  await assert.rejects(other, { code: "COV_CHECKPOINT_UPLOAD_UNKNOWN" });
  await uploadCheckpoint(client, small, manifest);
  const first = await client.commitCheckpoint({ uploadId });
  assert.deepEqual(await client.commitCheckpoint({ uploadId }), first);
  assert.equal((await client.listCheckpoints({})).checkpoints.length, 1);
});

test("wrong chunks are refused, and what came before them stays", async (t) => {
  const registry = await start(t);
  const client = registry.as("gauntlet-validator");
  const manifest = describe(small);
  const { uploadId } = await client.beginUpload({ manifest });
  const [first, second] = manifest.files[1]!.chunkSha256;
  const chunk = (sha256: Uint8Array, data: Uint8Array) => ({ uploadId, sha256, data });
  const good = chunk(first!, small[1]!.data.subarray(0, CHUNK_BYTES));
  const flipped = small[1]!.data.slice(CHUNK_BYTES, 2 * CHUNK_BYTES);
  flipped[0]! ^= 1;
  async function* send(...requests: ReturnType<typeof chunk>[]) {
    yield* requests;
  }
  const cases: [string, ReturnType<typeof chunk>][] = [
    ["COV_CHECKPOINT_CHUNK_MISMATCH", chunk(second!, flipped)],
    ["COV_CHECKPOINT_CHUNK_MISMATCH", chunk(second!, flipped.subarray(1))],
    ["COV_INVALID_ARGUMENT", chunk(new Uint8Array(32), flipped)],
    ["COV_INVALID_ARGUMENT", chunk(new Uint8Array(5), flipped)],
    ["COV_INVALID_ARGUMENT", { ...good, uploadId: "another" }],
    ["COV_MESSAGE_TOO_LARGE", chunk(second!, new Uint8Array(17 << 20))],
  ];
  for (const [code, bad] of cases)
    await assert.rejects(client.putChunks(send(good, bad)), { code });
  const unknown = client.putChunks(send({ ...good, uploadId: "nothing" }));
  await assert.rejects(unknown, { code: "COV_CHECKPOINT_UPLOAD_UNKNOWN" });
  assert.equal((await client.beginUpload({ manifest })).missing.length, 3);
});

test("concurrent uploads that share chunks all succeed, and shared chunks are stored once", async (t) => {
  const registry = await start(t);
  const shared = { seed: 50, bytes: 2 * CHUNK_BYTES };
  const sets = [1, 2, 3].map((seed) => filesOf([shared, { seed, bytes: 1000 }]));
  const client = registry.as("gauntlet-validator");
  const results = await Promise.all(
    sets.map((files, i) => uploadCheckpoint(client, files, describe(files, { version: i }))),
  );
  assert.equal(new Set(results.map(({ sequence }) => sequence)).size, 3);
  const { checkpoints } = await client.listCheckpoints({ runId: "run" });
  for (const { storedBytes } of checkpoints) assert.equal(storedBytes, BigInt(shared.bytes + 1000));
  const objects = join(world.directory, `d${count - 1}`, "objects", "checkpoints");
  const names = await readdir(objects, { recursive: true, withFileTypes: true });
  assert.equal(names.filter((entry) => entry.isFile()).length, 2 + 3);
});

test("prune keeps pinned, released and newest, and the chunks they share with what goes", async (t) => {
  const registry = await start(t);
  const client = registry.as("gauntlet-validator");
  const operator = registry.as("operator");
  const roots: Uint8Array[] = [];
  for (let version = 0; version < 4; version++) {
    const files = filesOf([
      { seed: 70, bytes: 5000 },
      { seed: version, bytes: 1000 },
    ]);
    const stage = version === 1 ? CheckpointStage.RELEASE : CheckpointStage.PRETRAIN;
    roots.push((await uploadCheckpoint(client, files, describe(files, { version, stage }))).root);
  }
  await operator.pin({ root: roots[0]!, pinned: true });
  const request = { runId: "run", keepNewest: 1 };
  const plan = await operator.prune({ ...request, dryRun: true });
  assert.deepEqual(plan.removedRoots, [roots[2]]);
  assert.equal(plan.freedBytes, 1000n);
  assert.equal((await client.listCheckpoints({})).checkpoints.length, 4);
  const done = await operator.prune(request);
  assert.deepEqual(done.removedRoots, plan.removedRoots);
  assert.equal(done.freedBytes, plan.freedBytes);
  const gone = receiveCheckpoint(client, roots[2]!, { directory: newDirectory() });
  await assert.rejects(gone, { code: "COV_CHECKPOINT_NOT_FOUND" });
  for (const root of [roots[0]!, roots[1]!, roots[3]!]) {
    assert.equal((await operator.verify({ root })).intact, true);
    await receiveCheckpoint(client, root, { directory: newDirectory() });
  }
  await operator.pin({ root: roots[0]!, pinned: false });
  assert.deepEqual((await operator.prune(request)).removedRoots, [roots[0]]);
  for (const bad of [{ runId: "run" }, { keepNewest: 1 }]) {
    await assert.rejects(operator.prune(bad), { code: "COV_INVALID_ARGUMENT" });
  }
});

test("lists newest first, by run and stage, page by page", async (t) => {
  const registry = await start(t);
  const client = registry.as("gauntlet-validator");
  for (let version = 0; version < 5; version++) {
    const files = filesOf([{ seed: version, bytes: 10 }]);
    const changes = { version, runId: version === 2 ? "other" : "run" };
    await uploadCheckpoint(client, files, describe(files, changes));
  }
  const versions: number[] = [];
  let pageToken = "";
  do {
    const page = await client.listCheckpoints({ runId: "run", pageSize: 3, pageToken });
    versions.push(...page.checkpoints.map(({ manifest }) => manifest!.version));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  assert.deepEqual(versions, [4, 3, 1, 0]);
  const policies = await client.listCheckpoints({ stage: CheckpointStage.POLICY });
  assert.equal(policies.checkpoints.length, 0);
  const forged = client.listCheckpoints({ pageToken: "before-x" });
  await assert.rejects(forged, { code: "COV_INVALID_ARGUMENT" });
});

test("watchers get what exists, then each new one, of their run only", async (t) => {
  const registry = await start(t);
  const client = registry.as("gauntlet-validator");
  const commit = async (version: number, runId = "run") => {
    const files = filesOf([{ seed: version, bytes: 10 }]);
    return uploadCheckpoint(client, files, describe(files, { version, runId }));
  };
  const first = await commit(1);
  await commit(2);
  const stop = new AbortController();
  const seen: number[] = [];
  let later: Promise<unknown> | undefined;
  const reader = registry.asHotkey(hotkeyOf(9));
  const watch = async (): Promise<void> => {
    const request = { runId: "run", afterSequence: first.sequence };
    for await (const { manifest } of reader.watchCheckpoints(request, { signal: stop.signal })) {
      seen.push(manifest!.version);
      if (manifest!.version === 2) later = commit(3, "other").then(() => commit(4));
      if (manifest!.version === 4) stop.abort();
    }
  };
  await assert.rejects(watch(), { code: "COV_CANCELLED" });
  assert.deepEqual(seen, [2, 4]);
  await later;
});

test("verify finds damage; uploading again repairs it", async (t) => {
  const dataDirectory = newDirectory();
  const registry = await start(t, { dataDirectory });
  const client = registry.as("gauntlet-validator");
  const operator = registry.as("operator");
  const manifest = describe(small);
  await uploadCheckpoint(client, small, manifest);
  const hash = Buffer.from(manifest.files[1]!.chunkSha256[1]!).toString("hex");
  const object = join(dataDirectory, "objects/checkpoints/chunks~", `${hash.slice(0, 2)}~`, hash);
  await writeFile(object, contentOf(99, CHUNK_BYTES));
  const broken = receiveCheckpoint(client, manifest.root, { directory: newDirectory() });
  await assert.rejects(broken, { code: "COV_DATA_LOSS" });
  const report = await operator.verify({ root: manifest.root });
  assert.deepEqual([report.intact, report.badChunks], [false, [2]]);
  const repair = await uploadCheckpoint(client, small, manifest);
  assert.equal(repair.sentChunks, 1);
  assert.equal((await operator.verify({ root: manifest.root })).intact, true);
});
