import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { EndReport, JobEvent, JobRecord, JobSpec, TaskSpec } from "./job.ts";
import { isActiveTask, isFinalJob, isFinalTask, defaultJobPolicy as policy } from "./job.ts";
import { createJob, reduceJob } from "./job-reducer.ts";
import { configurationErrorExitCode } from "./restart.ts";

function taskSpec(name: string, over: Partial<TaskSpec> = {}): TaskSpec {
  const resources = { milliCpu: 500, memoryBytes: 100, milliGpu: 0 };
  return {
    name,
    workload: "w",
    resources,
    configJson: "{}",
    maxRestarts: 2,
    startDelaySeconds: 0,
    graceSeconds: 5,
    allowFailure: false,
    ...over,
  };
}

function jobSpec(tasks: TaskSpec[]): JobSpec {
  return { name: "job", tasks, pendingTimeoutSeconds: 60, maxRunSeconds: 3600, strategy: "PACK" };
}

function apply(job: JobRecord, nowMs: number, ...events: JobEvent[]): JobRecord {
  return events.reduce((state, event) => reduceJob(state, event, nowMs, policy).job, job);
}

function started(tasks: TaskSpec[]): JobRecord {
  const job = createJob("j1", "owner", jobSpec(tasks), 0);
  const assignment = new Map(tasks.map((task) => [task.name, "n0"]));
  return apply(job, 0, { type: "placed", assignment }, { type: "begin" });
}

function running(task: string, attempt = 1, nodeId = "n0"): JobEvent {
  return { type: "task-running", report: { task, nodeId, attempt, pid: 7, endpoint: "" } };
}

function ended(task: string, over: Partial<EndReport> = {}): JobEvent {
  const report: EndReport = {
    task,
    nodeId: "n0",
    attempt: 1,
    succeeded: false,
    failureClass: "USER_ERROR",
    exitCode: 1,
    signal: "",
    reason: "exit code 1",
    ...over,
  };
  return { type: "task-ended", report };
}

const success = { succeeded: true, failureClass: undefined, exitCode: 0, reason: "exit code 0" };

test("a gang goes from pending over reserved and starting to running and success", () => {
  const tasks = [taskSpec("a"), taskSpec("b")];
  let job = createJob("j1", "owner", jobSpec(tasks), 0);
  const partial = new Map([["a", "n0"]]);
  assert.equal(
    apply(job, 0, { type: "placed", assignment: partial }),
    job,
    "half a gang is refused",
  );
  job = apply(job, 0, {
    type: "placed",
    assignment: new Map([
      ["a", "n0"],
      ["b", "n1"],
    ]),
  });
  assert.equal(job.state, "RESERVED");
  const begin = reduceJob(job, { type: "begin" }, 1, policy);
  assert.deepEqual(begin.effects, [
    { type: "start", nodeId: "n0", task: "a", attempt: 1 },
    { type: "start", nodeId: "n1", task: "b", attempt: 1 },
  ]);
  job = apply(begin.job, 2, running("a"));
  assert.equal(job.state, "STARTING");
  job = apply(job, 2, running("b", 1, "n1"));
  assert.equal(job.state, "RUNNING");
  job = apply(job, 3, ended("a", success), ended("b", { ...success, nodeId: "n1" }));
  assert.equal(job.state, "SUCCEEDED");
  assert.equal(job.deadlineAtMs, undefined);
});

test("a crash restarts after a backoff that doubles, then fails the job and stops the rest", () => {
  let job = apply(started([taskSpec("a"), taskSpec("b")]), 0, running("a"), running("b"));
  job = apply(job, 1000, ended("a"));
  const task = () => job.tasks[0]!;
  assert.equal(task().state, "RESTARTING");
  assert.equal(task().failureClass, "USER_ERROR");
  assert.match(task().reason, /exit code 1; restart 1 of at most 2/);
  assert.equal(task().notBeforeMs, 2000);
  assert.equal(apply(job, 1999, { type: "tick" }), job);
  const restart = reduceJob(job, { type: "tick" }, 2000, policy);
  assert.deepEqual(restart.effects, [{ type: "start", nodeId: "n0", task: "a", attempt: 2 }]);
  job = apply(restart.job, 2001, running("a", 1));
  assert.equal(task().state, "STARTING", "a report of the first start is stale");
  job = apply(job, 2001, running("a", 2), ended("a", { attempt: 2 }));
  assert.equal(task().notBeforeMs, 2001 + 2000);
  job = apply(job, 4001, { type: "tick" }, running("a", 3));
  const last = reduceJob(job, ended("a", { attempt: 3 }), 5000, policy);
  job = last.job;
  assert.equal(task().state, "FAILED");
  assert.equal(job.state, "CANCELLING");
  const stop = { type: "stop", nodeId: "n0", task: "b", attempt: 1, graceSeconds: 5 } as const;
  assert.deepEqual(last.effects, [stop]);
  job = apply(job, 5001, ended("b", { reason: "SIGTERM" }));
  assert.equal(job.state, "FAILED");
  assert.equal(job.tasks[1]!.state, "STOPPED");
  assert.match(job.reason, /task "a" failed: exit code 1; restarts used up/);
});

test("a wrong configuration is never restarted", () => {
  let job = apply(started([taskSpec("a")]), 0, running("a"));
  job = apply(job, 1, ended("a", { exitCode: configurationErrorExitCode }));
  assert.equal(job.state, "FAILED");
  assert.match(job.reason, /configuration is wrong/);
});

test("a lost node costs no restart of the task's own budget, and its return re-adopts the task", () => {
  const spec = taskSpec("a", { maxRestarts: 0 });
  let job = apply(started([spec]), 0, running("a"), {
    type: "task-lost",
    task: "a",
    reason: "gone",
  });
  assert.equal(job.tasks[0]!.state, "RESTARTING");
  assert.equal(job.tasks[0]!.nodeId, "");
  const back = apply(job, 1, running("a", 1, "n0"));
  assert.equal(back.tasks[0]!.state, "RUNNING");
  assert.equal(back.tasks[0]!.nodeId, "n0");
  const belated = apply(job, 1, ended("a", success));
  assert.equal(belated.state, "SUCCEEDED", "it had ended well before its node was given up");
  job = apply(job, 1, { type: "task-replaced", task: "a", nodeId: "n5" });
  const restart = reduceJob(job, { type: "tick" }, 10_000, policy);
  assert.deepEqual(restart.effects, [{ type: "start", nodeId: "n5", task: "a", attempt: 2 }]);
});

test("a delayed task starts after its delay and does not hold the gang up", () => {
  let job = started([taskSpec("a"), taskSpec("late", { startDelaySeconds: 20 })]);
  job = apply(job, 1, running("a"));
  assert.equal(job.state, "RUNNING");
  assert.equal(apply(job, 19_999, { type: "tick" }), job);
  const due = reduceJob(job, { type: "tick" }, 20_000, policy);
  assert.deepEqual(due.effects, [{ type: "start", nodeId: "n0", task: "late", attempt: 1 }]);
});

test("a task that may fail does not take the job with it", () => {
  const spec = taskSpec("a", { maxRestarts: 0, allowFailure: true });
  let job = apply(started([spec, taskSpec("b")]), 0, running("a"), running("b"), ended("a"));
  assert.equal(job.state, "RUNNING");
  job = apply(job, 1, ended("b", success));
  assert.equal(job.state, "SUCCEEDED");
  assert.match(job.reason, /allowed to fail: a/);
});

test("cancelling stops what runs and ends even when no node answers", () => {
  const job = apply(started([taskSpec("a")]), 0, running("a"));
  const cancel = reduceJob(job, { type: "cancel", reason: "asked by owner" }, 100, policy);
  assert.equal(cancel.job.state, "CANCELLING");
  assert.equal(cancel.effects.length, 1);
  const done = apply(cancel.job, 101, ended("a", { reason: "stopped" }));
  assert.equal(done.state, "CANCELLED");
  const silent = apply(cancel.job, 100 + 5_000 + policy.stopMarginMs, { type: "tick" });
  assert.equal(silent.state, "CANCELLED");
  assert.match(silent.tasks[0]!.reason, /did not confirm/);
});

test("a reservation that is not begun gives its room back", () => {
  const job = createJob("j1", "owner", jobSpec([taskSpec("a")]), 0);
  const held = apply(job, 0, { type: "placed", assignment: new Map([["a", "n0"]]) });
  const released = apply(held, policy.reservationHoldMs, { type: "tick" });
  assert.equal(released.state, "PENDING");
  assert.equal(released.tasks[0]!.nodeId, "");
  const expired = apply(released, 60_000, { type: "tick" });
  assert.equal(expired.state, "FAILED");
});

const names = ["a", "b", "c"];
const taskName = fc.constantFrom(...names);
const attempt = fc.integer({ min: 1, max: 3 });
const nodeId = fc.constantFrom("n0", "n1");
const failureClass = fc.constantFrom("PREEMPTED", "USER_ERROR", "NODE_LOST", "PLATFORM");

const anyEvent: fc.Arbitrary<JobEvent> = fc.oneof(
  fc.constant<JobEvent>({ type: "placed", assignment: new Map(names.map((name) => [name, "n0"])) }),
  fc.constant<JobEvent>({ type: "begin" }),
  fc.constant<JobEvent>({ type: "tick" }),
  fc.tuple(taskName, attempt, nodeId).map(([task, n, node]) => running(task, n, node)),
  fc
    .tuple(taskName, attempt, failureClass, fc.boolean())
    .map(([task, n, cause, succeeded]) =>
      ended(task, { attempt: n, failureClass: cause as EndReport["failureClass"], succeeded }),
    ),
  taskName.map((task): JobEvent => ({ type: "task-lost", task, reason: "gone" })),
  fc
    .tuple(taskName, nodeId)
    .map(([task, node]): JobEvent => ({ type: "task-replaced", task, nodeId: node })),
  fc.constant<JobEvent>({ type: "cancel", reason: "asked" }),
);
const steps = fc.array(fc.tuple(anyEvent, fc.integer({ min: 0, max: 5_000 })), { maxLength: 60 });

function checkInvariants(job: JobRecord): void {
  assert.notEqual(job.reason, "");
  assert.equal(job.deadlineAtMs === undefined, isFinalJob(job.state), `deadline in ${job.state}`);
  const withNode = job.tasks.filter((task) => task.nodeId !== "").length;
  if (job.state === "PENDING") assert.equal(withNode, 0, "no room is held while waiting");
  if (job.state === "RESERVED") assert.equal(withNode, job.tasks.length, "all or nothing");
  for (const task of job.tasks) {
    assert.notEqual(task.reason, "");
    if (isActiveTask(task.state)) assert.notEqual(task.nodeId, "");
    if (isFinalJob(job.state)) assert.ok(isFinalTask(task.state), "nothing outlives its job");
    if (task.state !== "RUNNING") assert.equal(task.pid, 0);
  }
}

function gang(): JobRecord {
  const [a, b, c] = names.map((name) => taskSpec(name));
  return createJob("j1", "owner", jobSpec([a!, b!, { ...c!, startDelaySeconds: 3 }]), 0);
}

test("any order of events keeps the invariants", () => {
  fc.assert(
    fc.property(steps, (list) => {
      let job = gang();
      let nowMs = 0;
      for (const [event, elapsedMs] of list) {
        nowMs += elapsedMs;
        job = reduceJob(job, event, nowMs, policy).job;
        checkInvariants(job);
      }
    }),
    { numRuns: 500 },
  );
});

test("from every reachable state, time alone leads to a final state", () => {
  fc.assert(
    fc.property(steps, (list) => {
      let job = gang();
      let nowMs = 0;
      for (const [event, elapsedMs] of list) {
        nowMs += elapsedMs;
        job = reduceJob(job, event, nowMs, policy).job;
      }
      for (let i = 0; i < 200 && !isFinalJob(job.state); i += 1) {
        nowMs += 60_000;
        job = reduceJob(job, { type: "tick" }, nowMs, policy).job;
      }
      assert.ok(isFinalJob(job.state), `stuck in ${job.state}: ${job.reason}`);
    }),
    { numRuns: 300 },
  );
});

test("a final job never changes again", () => {
  fc.assert(
    fc.property(steps, anyEvent, (list, event) => {
      let job = apply(gang(), 0, { type: "cancel", reason: "asked" });
      for (const [step, elapsedMs] of list) job = reduceJob(job, step, elapsedMs, policy).job;
      assert.equal(job.state, "CANCELLED");
      assert.equal(reduceJob(job, event, 1e9, policy).job, job);
    }),
  );
});
