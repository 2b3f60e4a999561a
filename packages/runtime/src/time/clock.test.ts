import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "./clock.ts";

test("a sleep ends with its signal, before or meanwhile, for the signal's reason", async () => {
  const reason = new Error("enough");
  await assert.rejects(systemClock.sleep(1e12, AbortSignal.abort(reason)), reason);
  const stop = new AbortController();
  // Longer than a timer can take: it must not fire at once.
  const sleeping = systemClock.sleep(1e12, stop.signal);
  setImmediate(() => stop.abort(reason));
  await assert.rejects(sleeping, reason);
  await systemClock.sleep(-5);
});
