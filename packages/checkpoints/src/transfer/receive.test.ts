// Receiving from sources that lie, stall, break off and repeat themselves.
import assert from "node:assert/strict";
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { hotkeyFromSeed } from "@covenant/contracts";
import {
  type CheckpointManifest,
  CheckpointStage,
  type StreamCheckpointResponse,
  StreamCheckpointResponseSchema,
} from "@covenant/contracts/registry";
import { CovenantError, systemClock } from "@covenant/runtime";
import fc from "fast-check";
import { CHUNK_BYTES, chunkPlaces, hasBit } from "../format/chunks.ts";
import { buildManifest } from "../format/manifest.ts";
import type { CheckpointFileData } from "../format/model-directory.ts";
import type { StreamClient } from "./client.ts";
import { readCheckpointDirectory } from "./directory.ts";
import { receiveCheckpoint } from "./receive.ts";
import { FAILURES_MAX } from "./retry.ts";

const scratch = await mkdtemp(join(tmpdir(), "covenant-receive-"));
after(() => rm(scratch, { recursive: true, force: true }));
let count = 0;
const newDirectory = (): string => join(scratch, `r${count++}`);
/** Retries without waiting. */
const impatient = { clock: { nowMs: systemClock.nowMs, sleep: async () => undefined } };

const hotkey = hotkeyFromSeed(new Uint8Array(32).fill(1));
const files: CheckpointFileData[] = [
  { path: "config.json", data: new TextEncoder().encode("{}") },
  { path: "empty.bin", data: new Uint8Array() },
  { path: "weights/model.bin", data: new Uint8Array(2 * CHUNK_BYTES + 9).fill(7) },
];
// Equal chunks would hide mistakes in order.
files[2]!.data[CHUNK_BYTES] = 1;
const facts = { runId: "run", stage: CheckpointStage.PRETRAIN, version: 1, createdAtMs: 1 };
const manifest = buildManifest(files, facts, hotkey);
const { root } = manifest;
const dataOf = new Map(files.map(({ path, data }) => [path, data]));

const manifestMessage = (value: CheckpointManifest): StreamCheckpointResponse =>
  create(StreamCheckpointResponseSchema, { item: { case: "manifest", value } });
const chunkMessage = (index: number, data: Uint8Array): StreamCheckpointResponse =>
  create(StreamCheckpointResponseSchema, { item: { case: "chunk", value: { index, data } } });

/** The messages of an honest registry. */
function* honest(have: Uint8Array): Generator<StreamCheckpointResponse> {
  yield manifestMessage(manifest);
  for (const { index, path, offset, sizeBytes } of chunkPlaces(manifest)) {
    if (hasBit(have, index)) continue;
    yield chunkMessage(index, dataOf.get(path)!.subarray(offset, offset + sizeBytes));
  }
}

/** A source that answers the nth stream with these messages. */
function sourceOf(
  answer: (have: Uint8Array, stream: number) => Iterable<StreamCheckpointResponse>,
): StreamClient & { streams: () => number } {
  let streams = 0;
  return {
    streams: () => streams,
    async *streamCheckpoint({ haveBitmap }) {
      yield* answer(haveBitmap ?? new Uint8Array(), streams++);
    },
  };
}

test("an honest source is received whole, nested and empty files included", async () => {
  const directory = newDirectory();
  const result = await receiveCheckpoint(sourceOf(honest), root, { directory });
  assert.equal(result.bytes, 2 * CHUNK_BYTES + 11);
  assert.deepEqual(await readCheckpointDirectory(directory, { maxBytes: 1 << 30 }), files);
  await assert.rejects(access(`${directory}.partial`));
  const tooMuch = readCheckpointDirectory(directory, { maxBytes: 1000 });
  await assert.rejects(tooMuch, { code: "COV_FILE_TOO_LARGE" });
});

test("what a source makes up is refused, and nothing appears under the directory", async () => {
  const other = buildManifest(files.slice(0, 2), facts, hotkey);
  const renamed = buildManifest(files, { ...facts, version: 2 }, hotkey);
  const forged = { ...manifest, licence: "other" };
  const config = files[0]!.data;
  const wrong = new Uint8Array(config.length);
  const first = manifestMessage(manifest);
  const cases: [string, StreamCheckpointResponse[]][] = [
    ["COV_CHECKPOINT_WRONG_ROOT", [manifestMessage(other)]],
    ["COV_CHECKPOINT_SIGNATURE", [manifestMessage(forged)]],
    ["COV_CHECKPOINT_MANIFEST_INVALID", [chunkMessage(0, config)]],
    ["COV_CHECKPOINT_MANIFEST_INVALID", [create(StreamCheckpointResponseSchema)]],
    ["COV_CHECKPOINT_MANIFEST_INVALID", [first, manifestMessage(renamed)]],
    ["COV_CHECKPOINT_CHUNK_MISMATCH", [first, chunkMessage(0, wrong)]],
    ["COV_CHECKPOINT_CHUNK_MISMATCH", [first, chunkMessage(0, config.subarray(1))]],
    ["COV_CHECKPOINT_CHUNK_MISMATCH", [first, chunkMessage(4, config)]],
    ["COV_CHECKPOINT_CHUNK_MISMATCH", [first, chunkMessage(2 ** 32 - 1, config)]],
    ["COV_CHECKPOINT_CHUNK_MISMATCH", [first, chunkMessage(0, config), chunkMessage(0, config)]],
    ["COV_CHECKPOINT_TRANSFER_STALLED", [first]],
    ["COV_CHECKPOINT_TRANSFER_STALLED", []],
  ];
  for (const [code, messages] of cases) {
    const directory = newDirectory();
    const call = receiveCheckpoint(
      sourceOf(() => messages),
      root,
      { directory },
      impatient,
    );
    await assert.rejects(call, { code });
    await assert.rejects(access(directory), { code: "ENOENT" });
  }
});

test("expectations of signer and size are checked before anything is written", async () => {
  const cases = [
    { code: "COV_CHECKPOINT_SIGNATURE", options: { signer: "5Foreign" } },
    { code: "COV_CHECKPOINT_TOO_LARGE", options: { maxBytes: 1000 } },
  ];
  for (const { code, options } of cases) {
    const directory = newDirectory();
    const call = receiveCheckpoint(sourceOf(honest), root, { directory, ...options });
    await assert.rejects(call, { code });
    await assert.rejects(access(`${directory}.partial`), { code: "ENOENT" });
  }
});

test("however often a stream breaks, progress carries it to the end", async () => {
  const breaks = fc.array(fc.nat({ max: 3 }), { maxLength: 6 });
  const run = async (lengths: number[]): Promise<void> => {
    const source = sourceOf(function* (have, stream) {
      let left = lengths[stream] ?? Number.POSITIVE_INFINITY;
      for (const message of honest(have)) {
        if (left-- === 0) throw new CovenantError("COV_UNAVAILABLE", "gone");
        yield message;
      }
    });
    // Streams that break before the first chunk make no progress.
    const idle = lengths.reduce(
      (state, length) => {
        const now = length <= 1 ? state.now + 1 : 1;
        return { now, worst: Math.max(state.worst, now) };
      },
      { now: 0, worst: 0 },
    ).worst;
    fc.pre(idle <= FAILURES_MAX);
    const directory = newDirectory();
    await receiveCheckpoint(source, root, { directory }, impatient);
    assert.deepEqual(await readCheckpointDirectory(directory, { maxBytes: 1 << 30 }), files);
  };
  await fc.assert(fc.asyncProperty(breaks, run), { numRuns: 15 });
});

test("a source that never gets further is given up after the budget", async () => {
  const source = sourceOf(() => {
    throw new CovenantError("COV_UNAVAILABLE", "gone");
  });
  const call = receiveCheckpoint(source, root, { directory: newDirectory() }, impatient);
  await assert.rejects(call, { code: "COV_UNAVAILABLE" });
  assert.equal(source.streams(), FAILURES_MAX + 1);
});

test("a source that falls silent is left, and the caller may leave at any time", async () => {
  const silent: StreamClient = {
    async *streamCheckpoint(_, options) {
      yield manifestMessage(manifest);
      await new Promise((_, reject) => {
        options?.signal?.addEventListener("abort", () => reject(options.signal?.reason));
      });
    },
  };
  const options = { directory: newDirectory(), chunkTimeoutMs: 5 };
  const stalled = receiveCheckpoint(silent, root, options, impatient);
  await assert.rejects(stalled, { code: "COV_CHECKPOINT_TRANSFER_STALLED" });
  const controller = new AbortController();
  const { signal } = controller;
  const left = receiveCheckpoint(silent, root, { directory: newDirectory(), signal });
  controller.abort(new Error("enough"));
  await assert.rejects(left, /enough/);
});

test("a directory that is something else is left alone; leftovers of another root are replaced", async () => {
  const directory = newDirectory();
  await mkdir(directory);
  await writeFile(join(directory, "mine.txt"), "mine");
  const taken = receiveCheckpoint(sourceOf(honest), root, { directory });
  await assert.rejects(taken, { code: "COV_ALREADY_EXISTS" });
  assert.deepEqual(await readdir(directory), ["mine.txt"]);
  const fresh = newDirectory();
  await mkdir(`${fresh}.partial`);
  await writeFile(join(`${fresh}.partial`, ".covenant-manifest.pb"), "torn");
  await writeFile(join(`${fresh}.partial`, "stray.bin"), "stray");
  const result = await receiveCheckpoint(sourceOf(honest), root, { directory: fresh });
  assert.equal(result.resumedChunks, 0);
  assert.deepEqual((await readdir(fresh)).sort(), [
    ".covenant-manifest.pb",
    "config.json",
    "empty.bin",
    "weights",
  ]);
  assert.equal((await readFile(join(fresh, "config.json"))).toString(), "{}");
});
