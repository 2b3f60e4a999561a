import type { PlacementStrategy, TaskDemand } from "./placement.ts";
import type { FailureClass, FailureCounts, RestartPolicy } from "./restart.ts";

/**
 * States of a job. PENDING waits for room; RESERVED holds room on every node; STARTING has sent its
 * tasks; RUNNING has confirmed them all; CANCELLING stops what still runs; the rest are final.
 */
export type JobState =
  | "PENDING"
  | "RESERVED"
  | "STARTING"
  | "RUNNING"
  | "CANCELLING"
  | "SUCCEEDED"
  | "FAILED"
  | "CANCELLED";

/** States of a task. A task with a node holds the node's room until it is final. */
export type TaskState =
  | "PENDING"
  | "STARTING"
  | "RUNNING"
  | "RESTARTING"
  | "SUCCEEDED"
  | "FAILED"
  | "STOPPED";

/** What a user asked for, checked by `checkJobSpec`. */
export interface JobSpec {
  readonly name: string;
  readonly tasks: readonly TaskSpec[];
  /** How long the job may wait for its gang, seconds. */
  readonly pendingTimeoutSeconds: number;
  /** How long the job may run, seconds. */
  readonly maxRunSeconds: number;
  readonly strategy: PlacementStrategy;
}

/** One process of a job. */
export interface TaskSpec extends TaskDemand {
  /** Handed to the workload unread. */
  readonly configJson: string;
  /** Restarts after errors of the workload itself. */
  readonly maxRestarts: number;
  /** Seconds after the job's start. */
  readonly startDelaySeconds: number;
  /** Seconds between SIGTERM and SIGKILL. */
  readonly graceSeconds: number;
  /** When it fails for good, the job goes on without it. */
  readonly allowFailure: boolean;
}

/** A job with everything that decides its future. Plain data: it is stored as it is. */
export interface JobRecord {
  readonly id: string;
  readonly owner: string;
  readonly spec: JobSpec;
  state: JobState;
  reason: string;
  tasks: TaskRecord[];
  createdAtMs: number;
  changedAtMs: number;
  startedAtMs: number | undefined;
  /** When the present state ends by itself; undefined only in final states. */
  deadlineAtMs: number | undefined;
  /** The final state that CANCELLING leads to, and why. */
  ending: { state: "FAILED" | "CANCELLED"; reason: string } | undefined;
}

/** A task with everything that decides its future. */
export interface TaskRecord {
  readonly name: string;
  state: TaskState;
  reason: string;
  /** Empty while no node holds room for it. */
  nodeId: string;
  /** Number of the present start, from 1; reports of other attempts are stale. */
  attempt: number;
  restarts: number;
  failures: FailureCounts;
  failureClass: FailureClass | undefined;
  exitCode: number | undefined;
  signal: string;
  pid: number;
  endpoint: string;
  peakRssBytes: number;
  /** Earliest start, for delays and backoff. */
  notBeforeMs: number | undefined;
  /** When the present state ends by itself, where it has a deadline of its own. */
  deadlineAtMs: number | undefined;
}

/** Durations of states that are not the user's to choose, milliseconds. */
export interface JobPolicy extends RestartPolicy {
  /** How long room is held before the tasks are sent. */
  readonly reservationHoldMs: number;
  /** From sending a task to its process being there. */
  readonly taskStartTimeoutMs: number;
  /** From sending a gang to all of it being there, restarts included. */
  readonly gangStartTimeoutMs: number;
  /** Beyond the longest grace period, until a stop counts as done without confirmation. */
  readonly stopMarginMs: number;
  /** How long a lost task may wait for room on another node. */
  readonly replacementTimeoutMs: number;
}

/** Defaults of {@link JobPolicy}. */
export const defaultJobPolicy: JobPolicy = {
  reservationHoldMs: 15_000,
  taskStartTimeoutMs: 60_000,
  gangStartTimeoutMs: 600_000,
  stopMarginMs: 15_000,
  replacementTimeoutMs: 600_000,
  backoffBaseMs: 1_000,
  backoffMaxMs: 30_000,
  lossRestartsMax: 20,
  platformRestartsMax: 3,
};

/** What happens to a job. */
export type JobEvent =
  | { readonly type: "placed"; readonly assignment: ReadonlyMap<string, string> }
  | { readonly type: "waiting"; readonly reason: string }
  | { readonly type: "begin" }
  | { readonly type: "task-running"; readonly report: RunningReport }
  | { readonly type: "task-ended"; readonly report: EndReport }
  | { readonly type: "task-lost"; readonly task: string; readonly reason: string }
  | { readonly type: "task-replaced"; readonly task: string; readonly nodeId: string }
  | { readonly type: "task-peak"; readonly task: string; readonly peakRssBytes: number }
  | { readonly type: "cancel"; readonly reason: string }
  | { readonly type: "tick" };

/** A node says that a process is there. */
export interface RunningReport {
  readonly task: string;
  readonly nodeId: string;
  readonly attempt: number;
  readonly pid: number;
  /** "host:port", or empty until the workload announces one. */
  readonly endpoint: string;
}

/** A node says that a process is gone, or could not be started. */
export interface EndReport {
  readonly task: string;
  readonly nodeId: string;
  readonly attempt: number;
  readonly succeeded: boolean;
  readonly failureClass: FailureClass | undefined;
  readonly exitCode: number | undefined;
  readonly signal: string;
  readonly reason: string;
}

/** What the shell must tell nodes after a transition is durable. */
export type Effect =
  | {
      readonly type: "start";
      readonly nodeId: string;
      readonly task: string;
      readonly attempt: number;
    }
  | {
      readonly type: "stop";
      readonly nodeId: string;
      readonly task: string;
      readonly attempt: number;
      readonly graceSeconds: number;
    };

/** True in SUCCEEDED, FAILED, CANCELLED. */
export function isFinalJob(state: JobState): boolean {
  return state === "SUCCEEDED" || state === "FAILED" || state === "CANCELLED";
}

/** True in SUCCEEDED, FAILED, STOPPED. */
export function isFinalTask(state: TaskState): boolean {
  return state === "SUCCEEDED" || state === "FAILED" || state === "STOPPED";
}

/** True while a process of the task may exist. */
export function isActiveTask(state: TaskState): boolean {
  return state === "STARTING" || state === "RUNNING";
}
