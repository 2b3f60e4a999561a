import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { NodeView, TaskDemand } from "./placement.ts";
import { checkFeasible, placeGang } from "./placement.ts";
import type { Resources } from "./resources.ts";
import { fits, noResources, subtractResources } from "./resources.ts";

const amount = fc.integer({ min: 0, max: 4 }).map((n) => n * 500);
const resources = fc.record({ milliCpu: amount, memoryBytes: amount, milliGpu: amount });
const workload = fc.constantFrom("a", "b");

const nodes = fc.array(
  fc.record({ capacity: resources, workloads: fc.subarray(["a", "b"]), connected: fc.boolean() }),
  { minLength: 0, maxLength: 4 },
);
const tasks = fc.array(fc.record({ workload, resources }), { minLength: 1, maxLength: 5 });
const strategy = fc.constantFrom("PACK" as const, "SPREAD" as const);

function toNodes(list: readonly Omit<NodeView, "id" | "free">[]): NodeView[] {
  return list.map((node, index) => ({ ...node, id: `n${index}`, free: node.capacity }));
}

function toTasks(list: readonly Omit<TaskDemand, "name">[]): TaskDemand[] {
  return list.map((task, index) => ({ ...task, name: `t${index}` }));
}

/** Tries every assignment. */
function canPlaceByTrying(nodes: readonly NodeView[], tasks: readonly TaskDemand[]): boolean {
  const free = new Map<string, Resources>(nodes.map((node) => [node.id, node.free]));
  const tryFrom = (index: number): boolean => {
    const task = tasks[index];
    if (task === undefined) return true;
    for (const node of nodes) {
      const left = free.get(node.id)!;
      if (!node.connected || !node.workloads.includes(task.workload)) continue;
      if (!fits(task.resources, left)) continue;
      free.set(node.id, subtractResources(left, task.resources));
      if (tryFrom(index + 1)) return true;
      free.set(node.id, left);
    }
    return false;
  };
  return tryFrom(0);
}

test("a placement never gives a node more than it has, and places all tasks or none", () => {
  fc.assert(
    fc.property(nodes, tasks, strategy, (nodeList, taskList, how) => {
      const views = toNodes(nodeList);
      const demands = toTasks(taskList);
      const placement = placeGang(views, demands, how);
      if (!placement.placed) {
        assert.notEqual(placement.reason, "");
        return;
      }
      assert.equal(placement.assignment.size, demands.length);
      for (const view of views) {
        const here = demands.filter((task) => placement.assignment.get(task.name) === view.id);
        const left = here.reduce(
          (free, task) => subtractResources(free, task.resources),
          view.free,
        );
        assert.ok(fits(noResources, left));
        if (here.length > 0) assert.ok(view.connected);
        assert.ok(here.every((task) => view.workloads.includes(task.workload)));
      }
    }),
    { numRuns: 500 },
  );
});

test("a placement is found exactly when one exists", () => {
  fc.assert(
    fc.property(nodes, tasks, strategy, (nodeList, taskList, how) => {
      const views = toNodes(nodeList);
      const demands = toTasks(taskList);
      assert.equal(placeGang(views, demands, how).placed, canPlaceByTrying(views, demands));
    }),
    { numRuns: 500 },
  );
});

test("packing fills one node before the next, spreading levels them", () => {
  const capacity = { milliCpu: 4000, memoryBytes: 4000, milliGpu: 0 };
  const views = toNodes([
    { capacity, workloads: ["a"], connected: true },
    { capacity, workloads: ["a"], connected: true },
  ]);
  const half = { milliCpu: 1000, memoryBytes: 1000, milliGpu: 0 };
  const demands = toTasks([1, 2, 3, 4].map(() => ({ workload: "a", resources: half })));
  const nodesUsed = (how: "PACK" | "SPREAD") => {
    const placement = placeGang(views, demands, how);
    assert.ok(placement.placed);
    return [...placement.assignment.values()].sort();
  };
  assert.deepEqual(nodesUsed("PACK"), ["n0", "n0", "n0", "n0"]);
  assert.deepEqual(nodesUsed("SPREAD"), ["n0", "n0", "n1", "n1"]);
});

test("what can never run is told at once, naming the task and the reason", () => {
  const capacity = { milliCpu: 2000, memoryBytes: 1000, milliGpu: 0 };
  const views = toNodes([
    { capacity, workloads: ["a"], connected: false },
    { capacity, workloads: ["a"], connected: true },
  ]);
  const task = (workload: string, milliCpu: number) => ({
    workload,
    resources: { milliCpu, memoryBytes: 0, milliGpu: 0 },
  });
  assert.deepEqual(checkFeasible([], toTasks([task("x", 1)]), "PACK"), { feasible: true });
  assert.deepEqual(checkFeasible(views, toTasks([task("a", 2000), task("a", 2000)]), "PACK"), {
    feasible: true,
  });
  const unknown = checkFeasible(views, toTasks([task("x", 1)]), "PACK");
  assert.ok(!unknown.feasible && unknown.task === "t0" && unknown.reason.includes('"x"'));
  const tooBig = checkFeasible(views, toTasks([task("a", 1), task("a", 2001)]), "PACK");
  assert.ok(!tooBig.feasible && tooBig.task === "t1" && tooBig.reason.includes("2001 mCPU"));
  const together = checkFeasible(views, toTasks([1, 2, 3].map(() => task("a", 1500))), "PACK");
  assert.ok(!together.feasible && together.task === undefined && together.reason.includes("4500"));
});

test("the reason for waiting counts what each node lacks", () => {
  const views: NodeView[] = [
    { id: "n0", capacity: noResources, free: noResources, connected: true, workloads: ["a"] },
    { id: "n1", capacity: noResources, free: noResources, connected: false, workloads: ["a"] },
    { id: "n2", capacity: noResources, free: noResources, connected: true, workloads: [] },
  ];
  const demand = {
    name: "t",
    workload: "a",
    resources: { milliCpu: 1, memoryBytes: 0, milliGpu: 0 },
  };
  const placement = placeGang(views, [demand], "PACK");
  assert.ok(!placement.placed);
  assert.match(placement.reason, /"t" needs 1 mCPU/);
  assert.match(placement.reason, /1 node short of CPU/);
  assert.match(placement.reason, /1 node not connected/);
  assert.match(placement.reason, /1 node without workload "a"/);
});
