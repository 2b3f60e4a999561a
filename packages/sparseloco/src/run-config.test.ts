import assert from "node:assert/strict";
import { test } from "node:test";
import { signMessage } from "@covenant/contracts";
import { RunConfigSchema } from "@covenant/contracts/templar";
import { isCheckpointRound, learningRateSchedule, runConfigProblems } from "./run-config.ts";
import { learningRateAt, learningRatesOfRound } from "./schedule.ts";
import { testHotkey, testRun } from "./test-run.ts";

test("a run with defaults is valid", () => {
  assert.deepEqual(runConfigProblems(testRun()), []);
});

test("all problems are reported at once, in words", () => {
  const run = testRun();
  run.runId = "Not OK";
  run.inner!.steps = 0;
  run.outer!.errorDecay = Number.NaN;
  run.model!.hiddenSize = 33;
  run.data!.train = [];
  const problems = runConfigProblems(run).join("\n");
  for (const part of ["run_id", "inner.steps is 0", "error_decay is NaN", "multiple", "no shard"]) {
    assert.match(problems, new RegExp(part));
  }
  assert.match(problems, /signature/);
});

test("a re-signed run with a missing part is still refused", () => {
  const run = testRun();
  run.outer = undefined;
  run.signature = signMessage(RunConfigSchema, run, testHotkey(1));
  assert.notDeepEqual(runConfigProblems(run), []);
});

test("the learning rate warms up, peaks and decays to its final share", () => {
  const schedule = learningRateSchedule(testRun());
  assert.equal(schedule.totalSteps, 320);
  const relative = (a: number, b: number) => Math.abs(a / b - 1) < 1e-12;
  assert.ok(relative(learningRateAt(schedule, 0), 3e-3 / 20));
  assert.ok(relative(learningRateAt(schedule, 19), 3e-3));
  assert.ok(relative(learningRateAt(schedule, 20), 3e-3));
  assert.ok(relative(learningRateAt(schedule, 319), 3e-4));
  const ofRound = learningRatesOfRound(schedule, 2, 10);
  assert.equal(ofRound.length, 10);
  assert.equal(ofRound[3], learningRateAt(schedule, 23));
});

test("checkpoints come every eight rounds and after the last", () => {
  const run = testRun();
  run.rounds = 20;
  const rounds = Array.from({ length: 20 }, (_, round) => round);
  assert.deepEqual(
    rounds.filter((round) => isCheckpointRound(run, round)),
    [7, 15, 19],
  );
});
