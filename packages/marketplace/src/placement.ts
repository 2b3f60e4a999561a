import type { Resources } from "./resources.ts";
import {
  addResources,
  describeResources,
  fillShare,
  fits,
  lacking,
  noResources,
  subtractResources,
} from "./resources.ts";

/** A node as placement sees it. */
export interface NodeView {
  readonly id: string;
  readonly capacity: Resources;
  readonly free: Resources;
  /** Only connected nodes receive tasks. */
  readonly connected: boolean;
  /** Names of the workloads that the node can start. */
  readonly workloads: readonly string[];
}

/** What one task of a gang asks for. */
export interface TaskDemand {
  readonly name: string;
  readonly workload: string;
  readonly resources: Resources;
}

/** PACK fills nodes one after the other, SPREAD levels them. */
export type PlacementStrategy = "PACK" | "SPREAD";

/** Either every task has a node, or none has and the reason says what is short. */
export type Placement =
  | { readonly placed: true; readonly assignment: ReadonlyMap<string, string> }
  | { readonly placed: false; readonly reason: string };

/**
 * Search steps of one placement. Packing a gang is bin packing; the search is exact until this many
 * tries and gives up for this pass afterwards.
 */
export const placementStepsMax = 2_000;

/**
 * Places a whole gang or nothing. Never gives a node more than it has free; the same input gives
 * the same answer (ties are broken by node id).
 */
export function placeGang(
  nodes: readonly NodeView[],
  tasks: readonly TaskDemand[],
  strategy: PlacementStrategy,
): Placement {
  const usable = nodes.filter((node) => node.connected).sort((a, b) => compare(a.id, b.id));
  const ordered = [...tasks].sort(
    (a, b) => weight(b, usable) - weight(a, usable) || compare(a.name, b.name),
  );
  const free = new Map(usable.map((node) => [node.id, node.free]));
  const assignment = new Map<string, string>();
  let steps = 0;

  const place = (index: number): boolean => {
    const task = ordered[index];
    if (task === undefined) return true;
    for (const node of candidates(task, usable, free, strategy)) {
      steps += 1;
      if (steps > placementStepsMax) return false;
      const before = free.get(node.id)!;
      free.set(node.id, subtractResources(before, task.resources));
      assignment.set(task.name, node.id);
      if (place(index + 1)) return true;
      free.set(node.id, before);
      assignment.delete(task.name);
    }
    return false;
  };

  if (place(0)) return { placed: true, assignment };
  return { placed: false, reason: explainWaiting(nodes, ordered) };
}

/** Nodes that can take the task now, best first; equally filled, equal nodes are tried once. */
function candidates(
  task: TaskDemand,
  nodes: readonly NodeView[],
  free: ReadonlyMap<string, Resources>,
  strategy: PlacementStrategy,
): NodeView[] {
  const scored: { node: NodeView; share: number }[] = [];
  const seen = new Set<string>();
  for (const node of nodes) {
    const left = free.get(node.id)!;
    if (!node.workloads.includes(task.workload) || !fits(task.resources, left)) continue;
    const signature = JSON.stringify([node.capacity, left, node.workloads]);
    if (seen.has(signature)) continue;
    seen.add(signature);
    scored.push({ node, share: fillShare(node.capacity, subtractResources(left, task.resources)) });
  }
  const direction = strategy === "PACK" ? -1 : 1;
  scored.sort((a, b) => direction * (a.share - b.share) || compare(a.node.id, b.node.id));
  return scored.map((entry) => entry.node);
}

/** The largest share of any node's capacity that the task takes: big tasks are placed first. */
function weight(task: TaskDemand, nodes: readonly NodeView[]): number {
  const largest = nodes.reduce(
    (max, node) => ({
      milliCpu: Math.max(max.milliCpu, node.capacity.milliCpu),
      memoryBytes: Math.max(max.memoryBytes, node.capacity.memoryBytes),
      milliGpu: Math.max(max.milliGpu, node.capacity.milliGpu),
    }),
    noResources,
  );
  return fillShare(largest, subtractResources(largest, task.resources));
}

/** Whether a gang can ever run on the enrolled nodes, all of them empty and connected. */
export type Feasibility =
  | { readonly feasible: true }
  | { readonly feasible: false; readonly task: string | undefined; readonly reason: string };

/**
 * The check at submission: a task that no enrolled node could ever hold, or a gang that does not
 * fit on all of them together, is refused at once rather than left to wait. With no node enrolled
 * nothing is known yet, so the gang is taken as feasible.
 */
export function checkFeasible(
  nodes: readonly NodeView[],
  tasks: readonly TaskDemand[],
  strategy: PlacementStrategy,
): Feasibility {
  if (nodes.length === 0) return { feasible: true };
  for (const task of tasks) {
    const offering = nodes.filter((node) => node.workloads.includes(task.workload));
    if (offering.length === 0) {
      const reason = `no node offers the workload "${task.workload}" of task "${task.name}"`;
      return { feasible: false, task: task.name, reason };
    }
    if (!offering.some((node) => fits(task.resources, node.capacity))) {
      const needs = describeResources(task.resources);
      const reason = `no node can ever fit task "${task.name}": it needs ${needs}`;
      return { feasible: false, task: task.name, reason };
    }
  }
  const empty = nodes.map((node) => ({ ...node, connected: true, free: node.capacity }));
  if (placeGang(empty, tasks, strategy).placed) return { feasible: true };
  const total = tasks.reduce((sum, task) => addResources(sum, task.resources), noResources);
  const all = nodes.reduce((sum, node) => addResources(sum, node.capacity), noResources);
  const reason =
    `the gang can never run at once: its ${tasks.length} tasks need ${describeResources(total)} ` +
    `together and the ${nodes.length} enrolled nodes offer ${describeResources(all)}`;
  return { feasible: false, task: undefined, reason };
}

/** Why a gang waits: the first task that no node can take now, and what each node lacks for it. */
function explainWaiting(nodes: readonly NodeView[], tasks: readonly TaskDemand[]): string {
  if (nodes.length === 0) return "no node has enrolled yet";
  for (const task of tasks) {
    const obstacles = nodes.map((node) => obstacle(node, task));
    if (obstacles.every((entry) => entry !== undefined)) {
      const needs = describeResources(task.resources);
      return `task "${task.name}" needs ${needs}; ${summarise(obstacles as string[])}`;
    }
  }
  const total = tasks.reduce((sum, task) => addResources(sum, task.resources), noResources);
  const free = nodes
    .filter((node) => node.connected)
    .reduce((sum, node) => addResources(sum, node.free), noResources);
  return (
    `the ${tasks.length} tasks need ${describeResources(total)} at once; ` +
    `free on all nodes: ${describeResources(free)}`
  );
}

function obstacle(node: NodeView, task: TaskDemand): string | undefined {
  if (!node.connected) return "not connected";
  if (!node.workloads.includes(task.workload)) return `without workload "${task.workload}"`;
  const short = lacking(task.resources, node.free);
  return short.length === 0 ? undefined : `short of ${short.join(" and ")}`;
}

function summarise(obstacles: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const entry of obstacles) counts.set(entry, (counts.get(entry) ?? 0) + 1);
  const parts = [...counts].map(
    ([entry, count]) => `${count} ${count === 1 ? "node" : "nodes"} ${entry}`,
  );
  return parts.join(", ");
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
