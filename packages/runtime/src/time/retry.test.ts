import assert from "node:assert/strict";
import { test } from "node:test";
import { CovenantError } from "../errors/covenant-error.ts";
import type { Clock } from "./clock.ts";
import { retry } from "./retry.ts";

/** Time that passes only by sleeping. */
function testClock(): Clock & { slept: number[] } {
  let now = 0;
  const slept: number[] = [];
  return {
    slept,
    nowMs: () => now,
    async sleep(ms, signal) {
      signal?.throwIfAborted();
      slept.push(ms);
      now += ms;
    },
  };
}

const { signal } = new AbortController();
const unavailable = () => new CovenantError("COV_UNAVAILABLE", "not now");

test("a call is repeated with growing pauses until it works, and says what it waits for", async () => {
  const clock = testClock();
  const waits: string[] = [];
  let failures = 8;
  const call = async () => {
    if (failures-- > 0) throw unavailable();
    return "done";
  };
  const onWait = (what: string, error: string) => waits.push(`${what}: ${error}`);
  const options = { what: "the ledger", signal, clock, budgetMs: 60_000, onWait };
  assert.equal(await retry(call, options), "done");
  assert.deepEqual(clock.slept, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
  assert.equal(waits[0], "the ledger: not now");
});

test("the budget ends it with the last error", async () => {
  const clock = testClock();
  const call = () => Promise.reject(unavailable());
  const options = { what: "x", signal, clock, budgetMs: 1000 };
  await assert.rejects(retry(call, options), { code: "COV_UNAVAILABLE" });
  assert.ok(clock.nowMs() <= 1000);
});

test("what cannot change is not repeated", async () => {
  const clock = testClock();
  const call = () => Promise.reject(new CovenantError("COV_UPDATE_REFUSED", "no"));
  const options = { what: "x", signal, clock, budgetMs: 1000 };
  await assert.rejects(retry(call, options), { code: "COV_UPDATE_REFUSED" });
  assert.deepEqual(clock.slept, []);
});

test("an aborted signal wins over everything", async () => {
  const stop = new AbortController();
  const call = async () => {
    stop.abort(new Error("the end"));
    throw unavailable();
  };
  const options = { what: "x", signal: stop.signal, clock: testClock(), budgetMs: 1000 };
  await assert.rejects(retry(call, options), /the end/);
});
