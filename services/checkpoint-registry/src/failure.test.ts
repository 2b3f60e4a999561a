// What breaks: processes killed, streams cut, disks full, objects damaged, callers slow.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { access, mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { CHUNK_BYTES, receiveCheckpoint, uploadCheckpoint } from "@covenant/checkpoints";
import { sha256, toHex } from "@covenant/contracts";
import type { CheckpointManifest } from "@covenant/contracts/registry";
import { type ObjectStore, openFileObjectStore } from "@covenant/objects";
import { type Clock, CovenantError, systemClock } from "@covenant/runtime";
import {
  describe,
  filesOf,
  openWorld,
  type RegistryClient,
  spawnRegistry,
  startTestRegistry,
  type TestRegistryOptions,
} from "./testing/harness.ts";

const world = await openWorld();
after(() => world.close());
let count = 0;
const newDirectory = (): string => join(world.directory, `f${count++}`);
const start = async (t: TestContext, options: Partial<TestRegistryOptions> = {}) => {
  const registry = await startTestRegistry(world, { dataDirectory: newDirectory(), ...options });
  t.after(() => registry.stop());
  return registry;
};
/** Retries without waiting. */
const impatient = { clock: { nowMs: systemClock.nowMs, sleep: async () => undefined } };

const big = filesOf([{ seed: 5, bytes: 6 * CHUNK_BYTES }]);
const bigManifest = describe(big);

/** Waits until the registry lacks no more than `missing` chunks of the manifest. */
async function untilMissing(client: RegistryClient, manifest: CheckpointManifest, missing: number) {
  while ((await client.beginUpload({ manifest })).missing.length > missing) await sleep(10);
}

test("a registry killed in the middle of an upload keeps every chunk it had stored", async (t) => {
  const dataDirectory = newDirectory();
  const first = await spawnRegistry(world, dataDirectory);
  t.after(() => first.kill());
  const client = first.as("gauntlet-validator");
  const { uploadId } = await client.beginUpload({ manifest: bigManifest });
  const release = Promise.withResolvers<void>();
  async function* firstThree() {
    for (let i = 0; i < 3; i++) {
      const data = big[0]!.data.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES);
      yield { uploadId, sha256: sha256(data), data };
    }
    await release.promise;
  }
  const cut = client.putChunks(firstThree());
  const failed = assert.rejects(cut);
  await untilMissing(first.as("gauntlet-validator"), bigManifest, 3);
  await first.kill();
  release.resolve();
  await failed;
  const second = await spawnRegistry(world, dataDirectory);
  t.after(() => second.stop());
  const again = second.as("gauntlet-validator");
  assert.equal((await again.listCheckpoints({})).checkpoints.length, 0);
  const result = await uploadCheckpoint(again, big, bigManifest);
  assert.equal(result.sentChunks, 3);
  assert.equal((await second.as("operator").verify({ root: bigManifest.root })).intact, true);
});

test("a download goes on where it stopped, after the registry was killed and a chunk was torn", async (t) => {
  const dataDirectory = newDirectory();
  const directory = newDirectory();
  const first = await spawnRegistry(world, dataDirectory);
  t.after(() => first.kill());
  await uploadCheckpoint(first.as("gauntlet-validator"), big, bigManifest);
  const onChunk = (_: unknown, held: number): void => {
    if (held === 3) void first.kill();
  };
  const cut = receiveCheckpoint(
    first.as("grail-rl"),
    bigManifest.root,
    { directory, onChunk },
    impatient,
  );
  await assert.rejects(cut, { code: "COV_UNAVAILABLE" });
  await assert.rejects(access(directory), { code: "ENOENT" });
  const torn = await open(join(`${directory}.partial`, "part-0.bin"), "r+");
  await torn.write(new Uint8Array(100), 0, 100, CHUNK_BYTES + 50);
  await torn.close();
  const second = await spawnRegistry(world, dataDirectory);
  t.after(() => second.stop());
  let sent = 0;
  const result = await receiveCheckpoint(second.as("grail-rl"), bigManifest.root, {
    directory,
    onChunk: () => {
      sent += 1;
    },
  });
  assert.ok(result.resumedChunks >= 2, `resumed ${result.resumedChunks}`);
  assert.equal(sent + result.resumedChunks, 6);
  assert.deepEqual(await readFile(join(directory, "part-0.bin")), Buffer.from(big[0]!.data));
});

/** A file store whose reads pass through `onGet`. */
function watchedStore(root: string, onGet: (key: string) => void): ObjectStore {
  const store = openFileObjectStore({ root, writableBuckets: "all" });
  return {
    put: (...args) => store.put(...args),
    head: (...args) => store.head(...args),
    list: (...args) => store.list(...args),
    remove: (...args) => store.remove(...args),
    get: async (bucket, key, options) => {
      onGet(key);
      return store.get(bucket, key, options);
    },
  };
}

test("a stream that breaks is continued within one call, without sending anything twice", async (t) => {
  const reads: string[] = [];
  const objects = watchedStore(newDirectory(), (key) => {
    reads.push(key);
    if (reads.length === 3) throw new CovenantError("COV_UNAVAILABLE", "The disk is busy");
  });
  const registry = await start(t, { objects });
  const client = registry.as("gauntlet-validator");
  await uploadCheckpoint(client, big, bigManifest);
  const options = { directory: newDirectory() };
  await receiveCheckpoint(client, bigManifest.root, options, impatient);
  assert.equal(reads.length, 7);
  assert.equal(new Set(reads).size, 6);
});

test("a slow reader holds back the registry's reading", async (t) => {
  let reads = 0;
  const objects = watchedStore(newDirectory(), () => {
    reads += 1;
  });
  const registry = await start(t, { objects });
  const client = registry.as("gauntlet-validator");
  const files = filesOf([{ seed: 6, bytes: 24 * CHUNK_BYTES }]);
  const manifest = describe(files);
  await uploadCheckpoint(client, files, manifest);
  const stream = registry.as("grail-rl").streamCheckpoint({ root: manifest.root });
  const messages = stream[Symbol.asyncIterator]();
  await messages.next();
  await messages.next();
  let before = -1;
  while (before !== reads) {
    before = reads;
    await sleep(300);
  }
  assert.ok(reads <= 6, `${reads} chunks were read ahead of the reader`);
  let received = 1;
  while (!(await messages.next()).done) received += 1;
  assert.equal(received, 24);
});

test("a full disk is reported, hides nothing half stored, and the upload goes on with more space", async (t) => {
  const root = newDirectory();
  await mkdir(root);
  const mount = (options: string): number | null =>
    spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", root]).status;
  if (mount("size=14m") !== 0) return t.skip("mounting a small file system needs root");
  const objects = openFileObjectStore({ root, writableBuckets: "all" });
  try {
    const registry = await start(t, { objects });
    const client = registry.as("gauntlet-validator");
    const full = uploadCheckpoint(client, big, bigManifest, {}, impatient);
    await assert.rejects(full, { code: "COV_DISK_FULL" });
    assert.equal((await client.listCheckpoints({})).checkpoints.length, 0);
    assert.deepEqual(await readdir(join(root, ".staging")), []);
    assert.equal(mount("remount,size=64m"), 0);
    const rest = await uploadCheckpoint(client, big, bigManifest);
    assert.ok(rest.sentChunks < 6, `${rest.sentChunks} chunks were sent again`);
    assert.equal((await registry.as("operator").verify({ root: bigManifest.root })).intact, true);
  } finally {
    spawnSync("umount", ["-l", root]);
  }
});

/** Names of all stored chunk objects. */
async function storedChunks(objects: ObjectStore): Promise<string[]> {
  return (await objects.list("checkpoints", { limit: 1000 })).keys;
}

test("an upload that nobody touches is dropped with its chunks, but not the chunks others need", async (t) => {
  let nowMs = 1_000_000_000;
  const clock: Clock = { nowMs: () => nowMs, sleep: (ms, signal) => systemClock.sleep(ms, signal) };
  const objects = openFileObjectStore({ root: newDirectory(), writableBuckets: "all" });
  const limits = { uploadExpiryMs: 1000, sweepEveryMs: 10 };
  const registry = await start(t, { objects, clock, limits });
  const client = registry.as("gauntlet-validator");
  const shared = { seed: 80, bytes: 100 };
  const kept = filesOf([shared]);
  await uploadCheckpoint(client, kept, describe(kept));
  const torn = filesOf([shared, { seed: 81, bytes: 100 }, { seed: 82, bytes: 100 }]);
  const manifest = describe(torn, { version: 2 });
  const { uploadId, missing } = await client.beginUpload({ manifest });
  assert.equal(missing.length, 2);
  async function* one() {
    yield { uploadId, sha256: sha256(torn[1]!.data), data: torn[1]!.data };
  }
  await client.putChunks(one());
  assert.equal((await storedChunks(objects)).length, 2);
  nowMs += 1001;
  while ((await storedChunks(objects)).length > 1) await sleep(10);
  const hash = toHex(sha256(kept[0]!.data));
  assert.deepEqual(await storedChunks(objects), [`chunks/${hash.slice(0, 2)}/${hash}`]);
  const late = client.commitCheckpoint({ uploadId });
  await assert.rejects(late, { code: "COV_CHECKPOINT_UPLOAD_UNKNOWN" });
});

test("chunks that a crash left without an entry are removed at the start", async (t) => {
  const root = newDirectory();
  const dataDirectory = newDirectory();
  const objects = openFileObjectStore({ root, writableBuckets: "all" });
  const before = await startTestRegistry(world, { dataDirectory, objects });
  const files = filesOf([{ seed: 90, bytes: 100 }]);
  await uploadCheckpoint(before.as("gauntlet-validator"), files, describe(files));
  await before.stop();
  const orphan = toHex(sha256(new Uint8Array(3)));
  await objects.put("checkpoints", `chunks/${orphan.slice(0, 2)}/${orphan}`, new Uint8Array(3));
  await writeFile(join(root, ".staging", "torn"), "torn");
  const registry = await start(t, { dataDirectory, objects });
  assert.equal((await storedChunks(objects)).length, 1);
  const { root: name } = describe(files);
  assert.equal((await registry.as("operator").verify({ root: name })).intact, true);
});
