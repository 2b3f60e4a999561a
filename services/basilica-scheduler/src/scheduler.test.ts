import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { JobState, TaskState } from "@covenant/contracts/basilica";
import { hasCode } from "@covenant/runtime";
import type { TestMesh } from "./testing/mesh.fixture.ts";
import { startMesh, testTask } from "./testing/mesh.fixture.ts";
import { eventually, isRunning } from "./testing/processes.fixture.ts";

let mesh: TestMesh;

before(async () => {
  mesh = await startMesh();
  await mesh.startAgent("alpha");
  await mesh.startAgent("beta");
});

after(() => mesh.close());

test("a gang of three starts together on real processes and ends when they end", async () => {
  const stop = join(mesh.directory, "gang-stop");
  const names = ["a", "b", "c"];
  const tasks = names.map((name) =>
    testTask(name, { exitWhen: stop, endpoint: `127.0.0.1:10${name.charCodeAt(0)}` }),
  );
  const job = await mesh.submit({ name: "gang", tasks });
  const running = await mesh.reach(job.id, JobState.RUNNING);
  assert.ok(running.tasks.every((task) => task.state === TaskState.RUNNING && isRunning(task.pid)));
  assert.equal(new Set(running.tasks.map((task) => task.pid)).size, 3);
  await eventually("endpoints are announced", async () => {
    const { job: now } = await mesh.scheduler.getJob({ jobId: job.id });
    return now?.tasks.every((task) => task.endpoint !== "");
  });
  writeFileSync(stop, "");
  const ended = await mesh.reach(job.id, JobState.SUCCEEDED);
  assert.ok(ended.tasks.every((task) => task.state === TaskState.SUCCEEDED && !task.pid));
});

test("a crashed task is restarted, and the reason says why it ended", async () => {
  const config = { crashOnce: join(mesh.directory, "crashed"), print: "here I am" };
  const task = testTask("flaky", config, { maxRestarts: 2 });
  const job = await mesh.submit({ name: "crash", tasks: [task] });
  const reasons = new Set<string>();
  for await (const { job: now } of mesh.scheduler.watchJobs({ jobId: job.id })) {
    const [only] = now?.tasks ?? [];
    if (only !== undefined) reasons.add(only.reason);
    if (only?.state === TaskState.RUNNING && only.restarts === 1) break;
  }
  assert.ok([...reasons].some((reason) => reason.includes("exit code 3; restart 1 of at most 2")));
  await mesh.scheduler.cancelJob({ jobId: job.id, reason: "seen enough" });
  const ended = await mesh.reach(job.id, JobState.CANCELLED);
  assert.equal(ended.reason, "seen enough");
});

test("a task that keeps failing fails the job and stops its gang", async () => {
  const failing = testTask("bad", { exitCode: 7 }, { maxRestarts: 1 });
  const job = await mesh.submit({ name: "failing", tasks: [failing, testTask("good")] });
  const ended = await mesh.reach(job.id, JobState.FAILED);
  const [bad, good] = ended.tasks;
  assert.equal(bad?.state, TaskState.FAILED);
  assert.equal(bad?.exitCode, 7);
  assert.equal(bad?.restarts, 1);
  assert.equal(good?.state, TaskState.STOPPED);
  assert.match(ended.reason, /"bad" failed: exit code 7/);
});

test("killing a task's process from outside restarts it", async () => {
  const job = await mesh.submit({ name: "killed", tasks: [testTask("a", {}, { maxRestarts: 1 })] });
  const running = await mesh.reach(job.id, JobState.RUNNING);
  const pid = running.tasks[0]!.pid;
  process.kill(pid, "SIGKILL");
  const again = await eventually("it runs again", async () => {
    const { job: now } = await mesh.scheduler.getJob({ jobId: job.id });
    const task = now?.tasks[0];
    return task?.state === TaskState.RUNNING && task.pid !== pid ? task : undefined;
  });
  assert.equal(again.restarts, 1);
  assert.equal(again.attempt, 2);
  await mesh.scheduler.cancelJob({ jobId: job.id });
  await mesh.reach(job.id, JobState.CANCELLED);
  assert.ok(!isRunning(again.pid));
});

test("cancelling ends even a task that ignores the polite signal", async () => {
  const config = { ignoreTerm: true, endpoint: "127.0.0.1:1" };
  const stubborn = testTask("stubborn", config, { graceSeconds: 1 });
  const job = await mesh.submit({ name: "stubborn", tasks: [stubborn] });
  await eventually("it handles signals", async () => {
    const { job: now } = await mesh.scheduler.getJob({ jobId: job.id });
    return now?.tasks[0]?.endpoint !== "";
  });
  const { pid } = (await mesh.reach(job.id, JobState.RUNNING)).tasks[0]!;
  await mesh.scheduler.cancelJob({ jobId: job.id });
  const ended = await mesh.reach(job.id, JobState.CANCELLED);
  assert.equal(ended.tasks[0]?.signal, "SIGKILL");
  assert.ok(!isRunning(pid));
});

test("what no node can ever run is refused with a typed error", async () => {
  const greedy = testTask("greedy", {}, { resources: { milliCpu: 4_001 } });
  await assert.rejects(mesh.submit({ name: "greedy", tasks: [greedy] }), (error) => {
    assert.ok(hasCode(error, "COV_JOB_INFEASIBLE"));
    assert.equal(error.metadata.task, "greedy");
    assert.match(error.message, /no node can ever fit task "greedy"/);
    return true;
  });
  const many = ["a", "b", "c", "d", "e"].map((name) =>
    testTask(name, {}, { resources: { milliCpu: 2_000 } }),
  );
  await assert.rejects(mesh.submit({ name: "together", tasks: many }), (error) =>
    hasCode(error, "COV_JOB_INFEASIBLE"),
  );
  const unknown = { ...testTask("a"), workload: "nobody-has-it" };
  await assert.rejects(mesh.submit({ name: "unknown", tasks: [unknown] }), (error) =>
    hasCode(error, "COV_JOB_INFEASIBLE"),
  );
});

test("a malformed job is refused with every problem at once", async () => {
  const tasks = [testTask("Bad Name"), { ...testTask("ok"), configJson: "not json" }];
  await assert.rejects(mesh.submit({ name: "", tasks }), (error) => {
    assert.ok(hasCode(error, "COV_INVALID_ARGUMENT"));
    assert.deepEqual(Object.keys(error.metadata).sort(), [
      "name",
      "tasks[0].name",
      "tasks[1].configJson",
    ]);
    return true;
  });
});

test("a job without room waits with its place and the reason, then runs", async () => {
  const stop = join(mesh.directory, "room-stop");
  const big = (name: string) =>
    testTask(name, { exitWhen: stop }, { resources: { milliCpu: 4_000 } });
  const first = await mesh.submit({ name: "first", tasks: [big("a"), big("b")] });
  await mesh.reach(first.id, JobState.RUNNING);
  const second = await mesh.submit({ name: "second", tasks: [big("a")] });
  const waiting = await eventually("the reason is known", async () => {
    const { job } = await mesh.scheduler.getJob({ jobId: second.id });
    return job?.queuePosition === 1 ? job : undefined;
  });
  assert.equal(waiting.state, JobState.PENDING);
  assert.match(waiting.reason, /needs 4000 mCPU; 2 nodes short of CPU/);
  writeFileSync(stop, "");
  await mesh.reach(second.id, JobState.SUCCEEDED);
});

test("submitting twice with one key gives one job; another job with that key is refused", async () => {
  const spec = { name: "once", tasks: [testTask("a", { exitNow: true })] };
  const [one, two] = await Promise.all([
    mesh.submit(spec, "the-key"),
    mesh.submit(spec, "the-key"),
  ]);
  assert.equal(one.id, two.id);
  await assert.rejects(mesh.submit({ ...spec, name: "other" }, "the-key"), (error) =>
    hasCode(error, "COV_IDEMPOTENCY_CONFLICT"),
  );
});

test("logs are streamed from the tail on, and end with the job", async () => {
  const stop = join(mesh.directory, "logs-stop");
  const config = { lines: 50, error: "to stderr", exitWhen: stop };
  const job = await mesh.submit({ name: "logs", tasks: [testTask("a", config)] });
  const lines: string[] = [];
  const request = { jobId: job.id, task: "a", tailLines: 1_000, follow: true };
  for await (const { line } of mesh.scheduler.streamLogs(request)) {
    lines.push(line);
    if (lines.length === 51) writeFileSync(stop, "");
  }
  assert.deepEqual(
    lines.filter((line) => line.startsWith("line")),
    Array.from({ length: 50 }, (_, i) => `line ${i}`),
  );
  assert.ok(lines.includes("to stderr"));
  const tail: string[] = [];
  for await (const { line } of mesh.scheduler.streamLogs({
    ...request,
    tailLines: 3,
    follow: false,
  }))
    tail.push(line);
  assert.equal(tail.length, 3);
});

test("a delayed task starts later, and the job counts as running without it", async () => {
  const late = testTask("late", {}, { startDelaySeconds: 1 });
  const job = await mesh.submit({ name: "delay", tasks: [testTask("now"), late] });
  const running = await mesh.reach(job.id, JobState.RUNNING);
  assert.equal(running.tasks[1]?.state, TaskState.PENDING);
  assert.match(running.tasks[1]?.reason ?? "", /starts 1 s after the job/);
  await eventually("the late task runs", async () => {
    const { job: now } = await mesh.scheduler.getJob({ jobId: job.id });
    return now?.tasks[1]?.state === TaskState.RUNNING;
  });
  await mesh.scheduler.cancelJob({ jobId: job.id });
  await mesh.reach(job.id, JobState.CANCELLED);
});

test("use is metered: processor time, wall time and peak memory", async () => {
  const job = await mesh.submit({
    name: "metered",
    tasks: [testTask("a", { burnMs: 700, exitNow: true })],
  });
  const ended = await mesh.reach(job.id, JobState.SUCCEEDED);
  // The last sample comes before the end, so that an ended job is metered whole.
  const [row] = (await mesh.billing.getUsage({ jobId: job.id })).rows;
  assert.ok(row !== undefined);
  assert.ok(row.cpuMicros >= 650_000n, `${row.cpuMicros} of 700000 microseconds`);
  assert.ok(row.peakRssBytes > 10_000_000n && row.peakRssBytes < 2_000_000_000n);
  assert.ok(row.wallMillis > 0n && row.sampleCount > 0n);
  assert.ok(ended.tasks[0]!.peakRssBytes > 0n);
});

test("the configuration of an ended task is removed from its node, its end is kept", async () => {
  const job = await mesh.submit({ name: "gone", tasks: [testTask("a", { exitNow: true })] });
  await mesh.reach(job.id, JobState.SUCCEEDED);
  const directories = ["alpha", "beta"].map((node) =>
    join(mesh.directory, node, "tasks", job.id, "a"),
  );
  const directory = directories.find((path) => existsSync(path));
  assert.ok(directory !== undefined);
  assert.ok(!existsSync(join(directory, "config.json")));
  assert.match(readFileSync(join(directory, "task.json"), "utf8"), /exit code 0/);
});
