import assert from "node:assert/strict";
import { test } from "node:test";
import { PeerPhase } from "@covenant/contracts/templar";
import { Gate } from "./gate.ts";
import { StatusBoard } from "./status.ts";

test("a watcher gets the current status first and the newest one after changes", async () => {
  const board = new StatusBoard({ hotkey: "5A", runId: "test" });
  const stop = new AbortController();
  const watch = board.watch(stop.signal);
  assert.equal((await watch.next()).value?.phase, PeerPhase.STARTING);
  board.update({ phase: PeerPhase.TRAINING, innerStep: 1 });
  board.update({ innerStep: 2 });
  const { value } = await watch.next();
  assert.equal(value?.innerStep, 2, "a slow watcher skips what is outdated");
  assert.equal(value?.phase, PeerPhase.TRAINING);
  const waiting = watch.next();
  stop.abort();
  assert.equal((await waiting).done, true);
});

test("a change while the watcher is busy is not lost", async () => {
  const board = new StatusBoard({ hotkey: "5A", runId: "test" });
  const stop = new AbortController();
  const seen: number[] = [];
  for await (const status of board.watch(stop.signal)) {
    seen.push(status.innerStep);
    if (status.innerStep === 0) board.update({ innerStep: 1 });
    if (status.innerStep === 1) stop.abort();
  }
  assert.deepEqual(seen, [0, 1]);
});

test("a snapshot does not change afterwards", () => {
  const board = new StatusBoard({ hotkey: "5A", runId: "test" });
  const before = board.current;
  board.update({ round: 9 });
  assert.equal(before.round, 0);
  assert.equal(board.current.round, 9);
});

test("a closed gate holds until it opens, or until the end", async () => {
  const gate = new Gate();
  const { signal } = new AbortController();
  await gate.pass(signal);
  gate.pause();
  let passed = false;
  const passing = gate.pass(signal).then(() => {
    passed = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(passed, false);
  gate.resume();
  await passing;
  assert.equal(gate.isPaused, false);
  gate.pause();
  const stop = new AbortController();
  const stopped = gate.pass(stop.signal);
  stop.abort(new Error("the end"));
  await assert.rejects(stopped, /the end/);
  gate.drain();
  assert.deepEqual([gate.isDraining, gate.isPaused], [true, false]);
});
