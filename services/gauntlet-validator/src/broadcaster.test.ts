import assert from "node:assert/strict";
import { test } from "node:test";
import { Broadcaster } from "./broadcaster.ts";
import { Serial } from "./serial.ts";

test("a watcher hears what changes from its call on, each round once per step", async () => {
  const broadcaster = new Broadcaster();
  const stop = new AbortController();
  broadcaster.changed(1);
  const watch = broadcaster.watch(stop.signal);
  for (const round of [5, 3, 5]) broadcaster.changed(round);
  assert.equal((await watch.next()).value, 3);
  broadcaster.changed(7);
  assert.equal((await watch.next()).value, 5);
  assert.equal((await watch.next()).value, 7);
  const waiting = watch.next();
  stop.abort();
  assert.equal((await waiting).done, true);
});

test("watchers are counted, and leaving makes room", () => {
  const broadcaster = new Broadcaster();
  const stop = new AbortController();
  for (let i = 0; i < 1024; i += 1) broadcaster.watch(stop.signal);
  assert.throws(() => broadcaster.watch(stop.signal), RangeError);
  stop.abort();
  broadcaster.watch(new AbortController().signal);
});

test("serial tasks keep their order, and a failing one stops nobody", async () => {
  const serial = new Serial();
  const done: string[] = [];
  const slow = serial.run(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    done.push("slow");
    return 1;
  });
  const failing = serial.run(async () => {
    done.push("failing");
    throw new Error("no");
  });
  const last = serial.run(async () => {
    done.push("last");
  });
  assert.equal(await slow, 1);
  await assert.rejects(failing, /no/);
  await last;
  assert.deepEqual(done, ["slow", "failing", "last"]);
});
