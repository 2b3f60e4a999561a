import assert from "node:assert/strict";
import { test } from "node:test";
import type { JobSpec, TaskSpec } from "./job.ts";
import { checkJobSpec, jobLimits } from "./job-spec.ts";

const task: TaskSpec = {
  name: "a",
  workload: "w",
  resources: { milliCpu: 1, memoryBytes: 1, milliGpu: 0 },
  configJson: "{}",
  maxRestarts: 0,
  startDelaySeconds: 0,
  graceSeconds: 5,
  allowFailure: false,
};
const spec: JobSpec = {
  name: "job-1",
  tasks: [task],
  pendingTimeoutSeconds: 60,
  maxRunSeconds: 60,
  strategy: "PACK",
};

test("a good job has no problems", () => {
  assert.deepEqual(checkJobSpec(spec), []);
});

test("all problems are told at once, with their paths", () => {
  const bad: JobSpec = {
    ...spec,
    name: "Not OK",
    pendingTimeoutSeconds: 0,
    tasks: [
      { ...task, configJson: "[1]" },
      { ...task, resources: { milliCpu: -1, memoryBytes: 0.5, milliGpu: 0 } },
      { ...task, name: "../etc", graceSeconds: 0 },
    ],
  };
  assert.deepEqual(
    checkJobSpec(bad).map((problem) => problem.field),
    [
      "name",
      "pendingTimeoutSeconds",
      "tasks[0].configJson",
      "tasks[1].resources",
      "tasks[1].name",
      "tasks[2].name",
      "tasks[2].graceSeconds",
    ],
  );
});

test("an empty job and one with too many tasks are refused", () => {
  assert.equal(checkJobSpec({ ...spec, tasks: [] }).length, 1);
  const many = Array.from({ length: jobLimits.tasksMax + 1 }, (_, i) => ({
    ...task,
    name: `t${i}`,
  }));
  assert.equal(checkJobSpec({ ...spec, tasks: many }).length, 1);
});
