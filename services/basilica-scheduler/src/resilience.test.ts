import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Task } from "@covenant/contracts/basilica";
import { FailureClass, JobState, TaskState } from "@covenant/contracts/basilica";
import type { TestMesh } from "./testing/mesh.fixture.ts";
import { startMesh, testTask } from "./testing/mesh.fixture.ts";
import type { TestProcess } from "./testing/processes.fixture.ts";
import { eventually, isRunning } from "./testing/processes.fixture.ts";

let mesh: TestMesh;
let scheduler: TestProcess;
let agent: TestProcess;

before(async () => {
  mesh = await startMesh({ nodeLostAfterMs: 6_000 });
  // The first process is the mesh's own; a second life replaces it in these tests.
  agent = await mesh.startAgent("alpha");
});

after(() => mesh.close());

async function restartScheduler(): Promise<void> {
  const old = scheduler ?? mesh.first;
  await old.kill("SIGKILL");
  scheduler = await mesh.startScheduler();
}

async function connected(name: string): Promise<void> {
  await eventually(`${name} is connected`, async () => {
    const { nodes } = await mesh.scheduler.listNodes({});
    return nodes.some((node) => node.id === name && node.connected);
  });
}

async function task(jobId: string): Promise<Task> {
  const { job } = await mesh.scheduler.getJob({ jobId });
  return job!.tasks[0]!;
}

function starts(file: string): number {
  return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").length : 0;
}

test("a killed scheduler comes back with its jobs and adopts what still runs", async () => {
  const startsFile = join(mesh.directory, "adopted-starts");
  const stop = join(mesh.directory, "adopted-stop");
  const config = { startsFile, exitWhen: stop, endpoint: "127.0.0.1:1234" };
  const job = await mesh.submit({ name: "adopted", tasks: [testTask("a", config)] });
  const { pid } = (await mesh.reach(job.id, JobState.RUNNING)).tasks[0]!;
  await restartScheduler();
  await connected("alpha");
  const adopted = await mesh.reach(job.id, JobState.RUNNING);
  assert.equal(adopted.tasks[0]?.pid, pid);
  assert.equal(adopted.tasks[0]?.restarts, 0);
  assert.equal(adopted.tasks[0]?.endpoint, "127.0.0.1:1234");
  writeFileSync(stop, "");
  await mesh.reach(job.id, JobState.SUCCEEDED);
  assert.equal(starts(startsFile), 1);
});

test("what happens while the scheduler is away is told afterwards, and counted once", async () => {
  const stop = join(mesh.directory, "away-stop");
  const config = { exitWhen: stop, burnMs: 300, print: "hello" };
  const job = await mesh.submit({ name: "away", tasks: [testTask("a", config)] });
  await mesh.reach(job.id, JobState.RUNNING);
  const { kill } = scheduler ?? mesh.first;
  await kill("SIGKILL");
  writeFileSync(stop, "");
  const { pid } = agent.child;
  assert.ok(pid !== undefined && isRunning(pid));
  scheduler = await mesh.startScheduler();
  const ended = await mesh.reach(job.id, JobState.SUCCEEDED);
  assert.equal(ended.tasks[0]?.restarts, 0);
  const lines: string[] = [];
  for await (const { line } of mesh.scheduler.streamLogs({
    jobId: job.id,
    task: "a",
    tailLines: 100,
  })) {
    lines.push(line);
  }
  assert.ok(lines.includes("hello") && lines.includes("burnt"));
  const usage = async () => (await mesh.billing.getUsage({ jobId: job.id })).rows[0]!;
  const before = await eventually("use is counted", async () => {
    const row = await usage();
    return row.cpuMicros > 0n ? row : undefined;
  });
  // Everything unacknowledged is sent again after a reconnection; the sums stay.
  await restartScheduler();
  await connected("alpha");
  const afterwards = await usage();
  assert.deepEqual(
    [afterwards.cpuMicros, afterwards.wallMillis],
    [before.cpuMicros, before.wallMillis],
  );
});

test("tasks survive their agent, and the next agent takes them over", async () => {
  const startsFile = join(mesh.directory, "survivor-starts");
  const stop = join(mesh.directory, "survivor-stop");
  const job = await mesh.submit({
    name: "survivor",
    tasks: [testTask("a", { startsFile, exitWhen: stop })],
  });
  const { pid } = (await mesh.reach(job.id, JobState.RUNNING)).tasks[0]!;
  await agent.kill("SIGKILL");
  assert.ok(isRunning(pid));
  agent = await mesh.startAgent("alpha");
  const adopted = await task(job.id);
  assert.equal(adopted.pid, pid);
  assert.equal(adopted.state, TaskState.RUNNING);
  writeFileSync(stop, "");
  // The exit status is known although the agent that started the process is gone.
  const ended = await mesh.reach(job.id, JobState.SUCCEEDED);
  assert.equal(ended.tasks[0]?.reason, "exit code 0");
  assert.equal(starts(startsFile), 1);
});

test("what ended while no agent ran is reported by the next one", async () => {
  const stop = join(mesh.directory, "unseen-stop");
  const job = await mesh.submit({ name: "unseen", tasks: [testTask("a", { exitWhen: stop })] });
  const { pid } = (await mesh.reach(job.id, JobState.RUNNING)).tasks[0]!;
  await agent.kill("SIGKILL");
  writeFileSync(stop, "");
  await eventually("the task has ended", () => !isRunning(pid));
  agent = await mesh.startAgent("alpha");
  const ended = await mesh.reach(job.id, JobState.SUCCEEDED);
  assert.equal(ended.tasks[0]?.restarts, 0);
});

test("an orderly leave of a node gives its tasks back, and they run again when it returns", async () => {
  const job = await mesh.submit({ name: "leave", tasks: [testTask("a", {}, { maxRestarts: 0 })] });
  const { pid } = (await mesh.reach(job.id, JobState.RUNNING)).tasks[0]!;
  await agent.kill("SIGTERM");
  assert.ok(!isRunning(pid));
  const given = await task(job.id);
  assert.equal(given.failureClass, FailureClass.PREEMPTED);
  agent = await mesh.startAgent("alpha");
  const again = await eventually("it runs again", async () => {
    const now = await task(job.id);
    return now.state === TaskState.RUNNING ? now : undefined;
  });
  assert.notEqual(again.pid, pid);
  await mesh.scheduler.cancelJob({ jobId: job.id });
  await mesh.reach(job.id, JobState.CANCELLED);
});

test("the tasks of a lost node move to another one, and the old processes are stopped", async () => {
  const job = await mesh.submit({ name: "moves", tasks: [testTask("a")] });
  const { pid } = (await mesh.reach(job.id, JobState.RUNNING)).tasks[0]!;
  await agent.kill("SIGKILL");
  const beta = await mesh.startAgent("beta");
  const moved = await eventually("it runs on the other node", async () => {
    const now = await task(job.id);
    return now.state === TaskState.RUNNING && now.nodeId === "beta" ? now : undefined;
  });
  assert.equal(moved.failureClass, FailureClass.NODE_LOST);
  assert.equal(moved.restarts, 1);
  assert.ok(isRunning(pid));
  agent = await mesh.startAgent("alpha");
  await eventually("the stray process is stopped", () => !isRunning(pid));
  await mesh.scheduler.cancelJob({ jobId: job.id });
  await mesh.reach(job.id, JobState.CANCELLED);
  await beta.kill("SIGTERM");
});

test("a node's name belongs to the hotkey that enrolled it", async () => {
  const hotkeySeedFile = join(mesh.directory, "thief.seed");
  writeFileSync(hotkeySeedFile, "ee".repeat(32));
  const dataDirectory = join(mesh.directory, "thief");
  await assert.rejects(
    mesh.startAgent("gamma", { nodeId: "alpha", hotkeySeedFile, dataDirectory }, 1_500),
    /never happened/,
  );
});

test("a workload whose command does not exist fails as the platform's fault, with the reason", async () => {
  const workloads = { broken: { command: ["/nonexistent/program"] } };
  await mesh.startAgent("delta", { workloads });
  const broken = { ...testTask("a"), workload: "broken" };
  const job = await mesh.submit({ name: "broken", tasks: [broken] });
  const ended = await mesh.reach(job.id, JobState.FAILED);
  assert.equal(ended.tasks[0]?.failureClass, FailureClass.PLATFORM);
  assert.match(ended.reason, /could not be run/);
});
