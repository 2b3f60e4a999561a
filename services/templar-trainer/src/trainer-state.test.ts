import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { type PendingUpdate, StateFiles, type TrainerState } from "./trainer-state.ts";

const owner = { runId: "test", hotkey: "5Alice", parameterCount: 4 };

async function withFiles(work: (files: StateFiles, directory: string) => Promise<void>) {
  const directory = await mkdtemp(path.join(tmpdir(), "covenant-state-"));
  try {
    await work(new StateFiles(directory, owner), directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

const state: TrainerState = {
  round: 3,
  stateRoot: new Uint8Array(32).fill(1),
  previousManifestSha256: new Uint8Array(32).fill(2),
  theta: Float32Array.of(1, 2, 3, 4),
  firstMoment: Float32Array.of(0.1, 0.2, 0.3, 0.4),
  secondMoment: Float32Array.of(5, 6, 7, 8),
  errorFeedback: Float32Array.of(-1, -0, 1e-40, Number.MAX_VALUE),
  optimizerStepCount: 30,
};

const pending: PendingUpdate = {
  round: 3,
  baseRoot: state.stateRoot,
  payload: Uint8Array.of(9, 8, 7),
  firstMoment: state.firstMoment,
  secondMoment: state.secondMoment,
  errorFeedback: state.errorFeedback,
  optimizerStepCount: 40,
};

const bits = (values: Float32Array) => [...new Uint32Array(values.slice().buffer)];

test("nothing is stored at first", async () => {
  await withFiles(async (files) => {
    assert.equal(await files.loadState(), undefined);
    assert.equal(await files.loadPending(), undefined);
  });
});

test("state and pending update come back bit for bit", async () => {
  await withFiles(async (files) => {
    await files.saveState(state);
    await files.savePending(pending);
    const loaded = (await files.loadState())!;
    assert.equal(loaded.round, 3);
    assert.equal(loaded.optimizerStepCount, 30);
    for (const name of ["theta", "firstMoment", "secondMoment", "errorFeedback"] as const) {
      assert.deepEqual(bits(loaded[name]), bits(state[name]), name);
    }
    assert.deepEqual(Buffer.from(loaded.previousManifestSha256!), Buffer.alloc(32, 2));
    const kept = (await files.loadPending())!;
    assert.deepEqual(Buffer.from(kept.payload), Buffer.from(pending.payload));
    assert.equal(kept.optimizerStepCount, 40);
  });
});

test("a state without a known manifest says so", async () => {
  await withFiles(async (files) => {
    await files.saveState({ ...state, previousManifestSha256: undefined });
    assert.equal((await files.loadState())!.previousManifestSha256, undefined);
  });
});

test("a damaged file is a typed error, and set aside it is gone", async () => {
  await withFiles(async (files, directory) => {
    await files.saveState(state);
    const file = path.join(directory, "trainer.state");
    const bytes = await readFile(file);
    bytes[bytes.length >> 1]! ^= 4;
    await writeFile(file, bytes);
    await assert.rejects(files.loadState(), { code: "COV_STATE_CORRUPT" });
    await writeFile(file, "");
    await assert.rejects(files.loadState(), { code: "COV_STATE_CORRUPT" });
    await files.setAside();
    assert.equal(await files.loadState(), undefined);
    assert.deepEqual(await readdir(directory), ["trainer.state.corrupt"]);
  });
});

test("a file of another run, another hotkey or another model is refused", async () => {
  await withFiles(async (files, directory) => {
    await files.saveState(state);
    for (const other of [
      { ...owner, runId: "x" },
      { ...owner, hotkey: "5Bob" },
      { ...owner, parameterCount: 5 },
    ]) {
      const reader = new StateFiles(directory, other);
      await assert.rejects(reader.loadState(), { code: "COV_STATE_CORRUPT" });
    }
  });
});
