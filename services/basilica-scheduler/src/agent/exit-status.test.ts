import assert from "node:assert/strict";
import { test } from "node:test";
import { describeEnd } from "./exit-status.ts";

test("exit statuses of a shell mean what POSIX says", () => {
  assert.equal(describeEnd(0, false).outcome, "SUCCEEDED");
  const failed = describeEnd(3, false);
  assert.deepEqual(
    [failed.outcome, failed.failureClass, failed.exitCode],
    ["FAILED", "USER_ERROR", 3],
  );
  const killed = describeEnd(128 + 11, false);
  assert.deepEqual([killed.signal, killed.reason], ["SIGSEGV", "killed by SIGSEGV"]);
  assert.equal(describeEnd(127, false).failureClass, "PLATFORM");
  assert.equal(describeEnd(undefined, false).signal, "SIGKILL");
});

test("what ends after a stop was asked for is no failure, however it ends", () => {
  for (const status of [0, 1, 143, undefined]) {
    const end = describeEnd(status, true);
    assert.equal(end.outcome, "STOPPED");
    assert.equal(end.failureClass, undefined);
  }
});
