import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { JobRecord, TaskSpec } from "./job.ts";
import { defaultJobPolicy } from "./job.ts";
import { createJob, reduceJob } from "./job-reducer.ts";
import type { NodeOffer } from "./queue.ts";
import { nodeViews, overtakingMsMax, planQueue, planReplacements } from "./queue.ts";
import { fits, noResources } from "./resources.ts";

function task(name: string, milliCpu: number): TaskSpec {
  return {
    name,
    workload: "w",
    resources: { milliCpu, memoryBytes: 0, milliGpu: 0 },
    configJson: "{}",
    maxRestarts: 0,
    startDelaySeconds: 0,
    graceSeconds: 5,
    allowFailure: false,
  };
}

function job(id: string, createdAtMs: number, demands: number[]): JobRecord {
  const tasks = demands.map((milliCpu, index) => task(`t${index}`, milliCpu));
  const spec = {
    name: id,
    tasks,
    pendingTimeoutSeconds: 600,
    maxRunSeconds: 600,
    strategy: "PACK",
  };
  return createJob(id, "owner", { ...spec, strategy: "PACK" }, createdAtMs);
}

function node(id: string, milliCpu: number): NodeOffer {
  const capacity = { milliCpu, memoryBytes: 0, milliGpu: 0 };
  return { id, capacity, connected: true, workloads: ["w"] };
}

test("younger small jobs overtake, until the head has waited too long", () => {
  const jobs = [job("big", 0, [900, 900]), job("small", 1, [500])];
  const early = planQueue([node("n0", 1000)], jobs, 10);
  assert.deepEqual(
    early.map((decision) => [decision.jobId, decision.placed]),
    [
      ["big", false],
      ["small", true],
    ],
  );
  const late = planQueue([node("n0", 1000)], jobs, overtakingMsMax);
  assert.deepEqual(
    late.map((decision) => decision.placed),
    [false, false],
  );
  const [first, second] = late;
  assert.ok(first?.placed === false && first.position === 1);
  assert.ok(second?.placed === false && second.position === 2);
  assert.match(second.reason, /behind job "big"/);
});

test("many jobs over time never over-commit a node and no gang is half placed", () => {
  const demand = fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: 4 });
  const action = fc.record({
    submit: fc.option(demand),
    cancel: fc.nat(20),
    elapsedMs: fc.nat(5_000),
  });
  const cluster = fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(cluster, fc.array(action, { maxLength: 30 }), (capacities, actions) => {
      const nodes = capacities.map((capacity, index) => node(`n${index}`, capacity));
      let jobs: JobRecord[] = [];
      let nowMs = 0;
      const each = (id: string, event: Parameters<typeof reduceJob>[1]): void => {
        jobs = jobs.map((entry) =>
          entry.id === id ? reduceJob(entry, event, nowMs, defaultJobPolicy).job : entry,
        );
      };
      for (const { submit, cancel, elapsedMs } of actions) {
        nowMs += elapsedMs;
        if (submit !== null) jobs.push(job(`j${jobs.length}`, nowMs, submit));
        each(`j${cancel}`, { type: "cancel", reason: "asked" });
        for (const decision of planQueue(nodes, jobs, nowMs)) {
          if (!decision.placed) continue;
          each(decision.jobId, { type: "placed", assignment: decision.assignment });
          each(decision.jobId, { type: "begin" });
        }
        for (const entry of jobs) each(entry.id, { type: "tick" });
        for (const view of nodeViews(nodes, jobs))
          assert.ok(fits(noResources, view.free), "over-committed");
        for (const entry of jobs) {
          const placed = entry.tasks.filter((item) => item.nodeId !== "").length;
          if (entry.state !== "CANCELLING" && entry.state !== "CANCELLED") {
            assert.ok(placed === 0 || placed === entry.tasks.length, "half placed");
          }
        }
      }
    }),
    { numRuns: 200 },
  );
});

test("a lost task is placed alone on a node with room", () => {
  let lost = job("a", 0, [600, 300]);
  const assignment = new Map([
    ["t0", "n0"],
    ["t1", "n1"],
  ]);
  const events = [
    { type: "placed", assignment },
    { type: "begin" },
    { type: "task-lost", task: "t0", reason: "gone" },
  ] as const;
  for (const event of events) lost = reduceJob(lost, event, 0, defaultJobPolicy).job;
  const away = { ...node("n0", 1000), connected: false };
  assert.deepEqual(planReplacements([away, node("n1", 700)], [lost]), []);
  assert.deepEqual(planReplacements([away, node("n1", 900)], [lost]), [
    { jobId: "a", task: "t0", nodeId: "n1" },
  ]);
});
