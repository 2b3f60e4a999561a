import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { stateRoot } from "@covenant/kernels";
import { StateFiles } from "./state-files.ts";

const tensors = [{ name: "w", shape: [2, 2], offset: 0, length: 4 }];
const parametersOf = (round: number) => Float32Array.of(round, 1, 2, 3);

async function withFiles(work: (files: StateFiles, directory: string) => Promise<void>) {
  const directory = await mkdtemp(path.join(tmpdir(), "covenant-files-"));
  const options = { directory, tensors, parameterCount: 4, mergedRoundsKept: 3 };
  try {
    await work(new StateFiles(options), directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

test("parameters come back when their root is right, and only then", async () => {
  await withFiles(async (files, directory) => {
    const root = await stateRoot(parametersOf(5), tensors);
    await files.saveParameters(5, parametersOf(5));
    assert.deepEqual(await files.loadParameters(5, root), parametersOf(5));
    const other = await stateRoot(parametersOf(6), tensors);
    await assert.rejects(files.loadParameters(5, other), { code: "COV_STATE_CORRUPT" });
    const file = path.join(directory, "state/5.bin");
    const bytes = await readFile(file);
    await writeFile(file, bytes.subarray(0, 12));
    await assert.rejects(files.loadParameters(5, root), { code: "COV_STATE_CORRUPT" });
  });
});

test("old parameters go, the predecessor and pinned ones stay", async () => {
  await withFiles(async (files, directory) => {
    files.pin(1);
    for (let round = 0; round < 6; round += 1) {
      await files.saveParameters(round, parametersOf(round));
    }
    const names = async () => (await readdir(path.join(directory, "state"))).sort();
    assert.deepEqual(await names(), ["1.bin", "4.bin", "5.bin"]);
    files.release(1);
    await files.saveParameters(6, parametersOf(6));
    assert.deepEqual(await names(), ["5.bin", "6.bin"]);
  });
});

test("merged updates are kept for as many rounds as configured, then say they are gone", async () => {
  await withFiles(async (files) => {
    for (let round = 0; round < 5; round += 1) {
      await files.saveMerged(round, Uint8Array.of(round));
    }
    assert.deepEqual([...(await files.loadMerged(2))], [2]);
    await assert.rejects(files.loadMerged(1), { code: "COV_ROUND_PRUNED" });
  });
});
