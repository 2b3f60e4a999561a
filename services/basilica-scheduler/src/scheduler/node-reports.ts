import type { Hello, MeterSample, TaskEvent } from "@covenant/contracts/basilica";
import { TaskState } from "@covenant/contracts/basilica";
import { countSample, expectedOn, isActiveTask, noUsage } from "@covenant/marketplace";
import { CovenantError } from "@covenant/runtime";
import type { Change } from "./control-loop.ts";
import { toFailureClass, toResources } from "./convert.ts";
import { usageKey } from "./state.ts";

/** Grace period for processes that should not be there. */
const strayGraceSeconds = 10;
/** Nodes that may enrol. */
const nodesMax = 10_000;

/**
 * Enrols a node, or greets one that is back, and brings both sides in line: tasks that still run
 * are adopted, tasks that are gone are counted as lost, starts that never arrived are sent again,
 * processes that should not run are stopped. Returns up to where the node's reports are stored.
 */
export function greetNode(change: Change, hello: Hello, hotkey: string): number {
  const { draft, nowMs } = change;
  const known = draft.node(hello.nodeId);
  if (known !== undefined && known.hotkey !== hotkey) {
    throw new CovenantError(
      "COV_NODE_NAME_TAKEN",
      `node ${hello.nodeId} belongs to another hotkey`,
    );
  }
  if (known === undefined && draft.allNodes().length >= nodesMax) {
    throw new CovenantError("COV_RESOURCE_EXHAUSTED", `no more than ${nodesMax} nodes can enrol`);
  }
  const sequence = known?.sequence ?? 0;
  draft.nodes.set(hello.nodeId, {
    id: hello.nodeId,
    hotkey,
    capacity: toResources(hello.capacity),
    workloads: [...hello.workloads],
    lastSeenAtMs: nowMs,
    sequence,
  });
  for (const event of hello.running) applyTaskEvent(change, hello.nodeId, event);
  resumeTasks(change, hello);
  return sequence;
}

function resumeTasks(change: Change, hello: Hello): void {
  const reported = new Set(
    hello.running.map((event) => `${event.jobId}/${event.task}/${event.attempt}`),
  );
  for (const { record } of change.draft.allJobs()) {
    for (const { task, attempt } of expectedOn(record, hello.nodeId)) {
      const present = record.tasks.find((entry) => entry.name === task)!;
      if (record.state === "CANCELLING") {
        const { graceSeconds } = record.spec.tasks.find((spec) => spec.name === task)!;
        change.tell({
          type: "stop",
          jobId: record.id,
          nodeId: hello.nodeId,
          task,
          attempt,
          graceSeconds,
        });
      }
      if (reported.has(`${record.id}/${task}/${attempt}`)) continue;
      if (present.state === "STARTING" && record.state !== "CANCELLING") {
        change.tell({ type: "start", jobId: record.id, nodeId: hello.nodeId, task, attempt });
      } else {
        const reason = "its node came back without it";
        change.apply(record.id, { type: "task-lost", task, reason });
      }
    }
  }
}

/** Applies what a node says about a task; stops processes that nobody wants any more. */
export function applyTaskEvent(change: Change, nodeId: string, event: TaskEvent): void {
  const { jobId, task, attempt } = event;
  switch (event.state) {
    case TaskState.STARTING:
      break;
    case TaskState.RUNNING: {
      const { pid, endpoint } = event;
      change.apply(jobId, {
        type: "task-running",
        report: { task, nodeId, attempt, pid, endpoint },
      });
      break;
    }
    case TaskState.SUCCEEDED:
    case TaskState.FAILED:
    case TaskState.STOPPED:
      change.apply(jobId, { type: "task-ended", report: endReport(nodeId, event) });
      return;
    default:
      return;
  }
  const record = change.draft.job(jobId)?.record.tasks.find((entry) => entry.name === task);
  const isWanted =
    record !== undefined &&
    isActiveTask(record.state) &&
    record.nodeId === nodeId &&
    record.attempt === attempt;
  if (isWanted) return;
  change.tell({ type: "stop", jobId, nodeId, task, attempt, graceSeconds: strayGraceSeconds });
}

function endReport(nodeId: string, event: TaskEvent) {
  const { task, attempt, exitCode, signal } = event;
  // A stop that the scheduler did not ask for is the node giving the task up.
  const byNode = event.state === TaskState.STOPPED ? "PREEMPTED" : undefined;
  return {
    task,
    nodeId,
    attempt,
    succeeded: event.state === TaskState.SUCCEEDED,
    failureClass: toFailureClass(event.failureClass) ?? byNode,
    exitCode,
    signal,
    reason: event.reason || "ended",
  };
}

/**
 * Marks a report as stored and returns whether it is new. Every report of a node passes here
 * first, so that what is sent again after a reconnection counts once.
 */
export function advanceSequence(change: Change, nodeId: string, sequence: number): boolean {
  const node = change.draft.node(nodeId);
  if (node === undefined || !Number.isSafeInteger(sequence) || sequence <= node.sequence)
    return false;
  change.draft.nodes.set(nodeId, { ...node, sequence, lastSeenAtMs: change.nowMs });
  return true;
}

/** Adds a sample to its task's use. Call before {@link advanceSequence}, which it checks against. */
export function applySample(change: Change, nodeId: string, sample: MeterSample): void {
  const { jobId, task } = sample;
  const node = change.draft.node(nodeId);
  if (node === undefined || change.draft.job(jobId) === undefined) return;
  const key = usageKey({ jobId, task, nodeId });
  const usage = change.draft.usageOf(key) ?? { ...noUsage, jobId, task, nodeId };
  const measured = {
    fromMs: Number(sample.fromMs),
    toMs: Number(sample.toMs),
    cpuMicros: Number(sample.cpuMicros),
    peakRssBytes: Number(sample.peakRssBytes),
    sequence: Number(sample.sequence),
  };
  const verdict = countSample(usage, measured, node.sequence);
  if (!verdict.counted) return;
  change.draft.usage.set(key, { ...verdict.usage, jobId, task, nodeId });
  change.apply(jobId, { type: "task-peak", task, peakRssBytes: measured.peakRssBytes });
}
