import type { JobRecord } from "./job.ts";
import { isActiveTask, isFinalTask } from "./job.ts";
import type { NodeView } from "./placement.ts";
import { placeGang } from "./placement.ts";
import type { Resources } from "./resources.ts";
import { addResources, noResources, subtractResources } from "./resources.ts";

/** A node without its present load. */
export interface NodeOffer {
  readonly id: string;
  readonly capacity: Resources;
  readonly connected: boolean;
  readonly workloads: readonly string[];
}

/** What one pass over the queue decided for one job. */
export type QueueDecision =
  | {
      readonly jobId: string;
      readonly placed: true;
      readonly assignment: ReadonlyMap<string, string>;
    }
  | {
      readonly jobId: string;
      readonly placed: false;
      readonly position: number;
      readonly reason: string;
    };

/**
 * A job that has waited this long at the head of the queue is not overtaken any more: younger jobs
 * wait until it is placed or gives up, so that a big gang does not starve.
 */
export const overtakingMsMax = 60_000;

/** Jobs that wait, in the order in which they are served: oldest first, ties by id. */
export function queueOrder(jobs: readonly JobRecord[]): JobRecord[] {
  return jobs
    .filter((job) => job.state === "PENDING")
    .sort((a, b) => a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : 1));
}

/**
 * Nodes with what is free on them: capacity less every task that holds room there. Derived from
 * the tasks each time, so that no counter can drift.
 */
export function nodeViews(nodes: readonly NodeOffer[], jobs: readonly JobRecord[]): NodeView[] {
  const used = new Map<string, Resources>();
  for (const job of jobs) {
    for (const [index, task] of job.tasks.entries()) {
      if (task.nodeId === "" || isFinalTask(task.state)) continue;
      const demand = job.spec.tasks[index]!.resources;
      used.set(task.nodeId, addResources(used.get(task.nodeId) ?? noResources, demand));
    }
  }
  return nodes.map((node) => ({
    ...node,
    free: subtractResources(node.capacity, used.get(node.id) ?? noResources),
  }));
}

/** One pass over the queue: who is placed where now, and why the others wait. */
export function planQueue(
  nodes: readonly NodeOffer[],
  jobs: readonly JobRecord[],
  nowMs: number,
): QueueDecision[] {
  let views = nodeViews(nodes, jobs);
  const decisions: QueueDecision[] = [];
  let blockedBy: JobRecord | undefined;
  let position = 0;
  for (const job of queueOrder(jobs)) {
    if (blockedBy !== undefined) {
      position += 1;
      const reason = `waits behind job "${blockedBy.spec.name}", which has waited too long to be overtaken`;
      decisions.push({ jobId: job.id, placed: false, position, reason });
      continue;
    }
    const placement = placeGang(views, job.spec.tasks, job.spec.strategy);
    if (placement.placed) {
      decisions.push({ jobId: job.id, placed: true, assignment: placement.assignment });
      views = take(views, job, placement.assignment);
      continue;
    }
    position += 1;
    decisions.push({ jobId: job.id, placed: false, position, reason: placement.reason });
    if (nowMs - job.createdAtMs >= overtakingMsMax) blockedBy = job;
  }
  return decisions;
}

/** Where lost tasks go: each is placed alone, since the rest of its gang still runs. */
export function planReplacements(
  nodes: readonly NodeOffer[],
  jobs: readonly JobRecord[],
): { readonly jobId: string; readonly task: string; readonly nodeId: string }[] {
  let views = nodeViews(nodes, jobs);
  const plans: { jobId: string; task: string; nodeId: string }[] = [];
  for (const job of jobs) {
    if (job.state !== "RUNNING" && job.state !== "STARTING") continue;
    for (const [index, task] of job.tasks.entries()) {
      if (task.state !== "RESTARTING" || task.nodeId !== "") continue;
      const spec = job.spec.tasks[index]!;
      const placement = placeGang(views, [spec], job.spec.strategy);
      if (!placement.placed) continue;
      const nodeId = placement.assignment.get(spec.name)!;
      plans.push({ jobId: job.id, task: spec.name, nodeId });
      views = views.map((view) =>
        view.id === nodeId ? { ...view, free: subtractResources(view.free, spec.resources) } : view,
      );
    }
  }
  return plans;
}

function take(
  views: NodeView[],
  job: JobRecord,
  assignment: ReadonlyMap<string, string>,
): NodeView[] {
  return views.map((view) => {
    let free = view.free;
    for (const spec of job.spec.tasks) {
      if (assignment.get(spec.name) === view.id) free = subtractResources(free, spec.resources);
    }
    return { ...view, free };
  });
}

/** Tasks of a job that a process may exist for on a node: what a node is expected to report. */
export function expectedOn(job: JobRecord, nodeId: string): { task: string; attempt: number }[] {
  return job.tasks
    .filter((task) => task.nodeId === nodeId && isActiveTask(task.state))
    .map((task) => ({ task: task.name, attempt: task.attempt }));
}
