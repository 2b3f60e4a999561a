import { create } from "@bufbuild/protobuf";
import type { Job, Node, Resources as ResourcesMessage, Task } from "@covenant/contracts/basilica";
import * as wire from "@covenant/contracts/basilica";
import type {
  FailureClass,
  JobRecord,
  JobSpec,
  NodeView,
  Resources,
  TaskRecord,
  TaskSpec,
} from "@covenant/marketplace";
import type { NodeRecord } from "./state.ts";

/** Values for fields that a submission leaves at 0. */
const defaults = {
  pendingTimeoutSeconds: 600,
  maxRunSeconds: 30 * 86_400,
  graceSeconds: 15,
} as const;

/** A submitted job as the domain knows it; fields left at 0 get their documented defaults. */
export function toJobSpec(message: wire.JobSpec): JobSpec {
  const spread = message.strategy === wire.PlacementStrategy.SPREAD;
  return {
    name: message.name,
    tasks: message.tasks.map(toTaskSpec),
    pendingTimeoutSeconds: message.pendingTimeoutSeconds || defaults.pendingTimeoutSeconds,
    maxRunSeconds: message.maxRunSeconds || defaults.maxRunSeconds,
    strategy: spread ? "SPREAD" : "PACK",
  };
}

function toTaskSpec(message: wire.TaskSpec): TaskSpec {
  return {
    name: message.name,
    workload: message.workload,
    resources: toResources(message.resources),
    configJson: message.configJson || "{}",
    maxRestarts: message.maxRestarts,
    startDelaySeconds: message.startDelaySeconds,
    graceSeconds: message.graceSeconds || defaults.graceSeconds,
    allowFailure: message.allowFailure,
  };
}

/** Whole units; a missing message is nothing. */
export function toResources(message: ResourcesMessage | undefined): Resources {
  return {
    milliCpu: message?.milliCpu ?? 0,
    memoryBytes: Number(message?.memoryBytes ?? 0n),
    milliGpu: message?.milliGpu ?? 0,
  };
}

/** The reverse of {@link toResources}; what is over-committed shows as 0. */
export function fromResources(resources: Resources): ResourcesMessage {
  return create(wire.ResourcesSchema, {
    milliCpu: Math.max(0, resources.milliCpu),
    memoryBytes: BigInt(Math.max(0, resources.memoryBytes)),
    milliGpu: Math.max(0, resources.milliGpu),
  });
}

/** The failure class of a report; undefined when it names none. */
export function toFailureClass(value: wire.FailureClass): FailureClass | undefined {
  switch (value) {
    case wire.FailureClass.PREEMPTED:
      return "PREEMPTED";
    case wire.FailureClass.USER_ERROR:
      return "USER_ERROR";
    case wire.FailureClass.NODE_LOST:
      return "NODE_LOST";
    case wire.FailureClass.PLATFORM:
      return "PLATFORM";
    default:
      return undefined;
  }
}

/** A task specification as nodes receive it. */
export function fromTaskSpec(spec: TaskSpec): wire.TaskSpec {
  return create(wire.TaskSpecSchema, { ...spec, resources: fromResources(spec.resources) });
}

/** A job as callers see it. */
export function fromJob(job: JobRecord, queuePosition: number): Job {
  return create(wire.JobSchema, {
    id: job.id,
    owner: job.owner,
    spec: {
      name: job.spec.name,
      tasks: job.spec.tasks.map(fromTaskSpec),
      pendingTimeoutSeconds: job.spec.pendingTimeoutSeconds,
      maxRunSeconds: job.spec.maxRunSeconds,
      strategy: wire.PlacementStrategy[job.spec.strategy],
    },
    state: wire.JobState[job.state],
    reason: job.reason,
    tasks: job.tasks.map(fromTask),
    createdAtMs: BigInt(job.createdAtMs),
    changedAtMs: BigInt(job.changedAtMs),
    deadlineAtMs: BigInt(job.deadlineAtMs ?? 0),
    queuePosition,
  });
}

function fromTask(task: TaskRecord): Task {
  return create(wire.TaskSchema, {
    name: task.name,
    nodeId: task.nodeId,
    state: wire.TaskState[task.state],
    reason: task.reason,
    restarts: task.restarts,
    pid: task.pid,
    endpoint: task.endpoint,
    peakRssBytes: BigInt(task.peakRssBytes),
    failureClass: wire.FailureClass[task.failureClass ?? "UNSPECIFIED"],
    exitCode: task.exitCode ?? 0,
    signal: task.signal,
    attempt: task.attempt,
    notBeforeMs: BigInt(task.notBeforeMs ?? 0),
  });
}

/** A node as callers see it. */
export function fromNode(node: NodeRecord, view: NodeView): Node {
  return create(wire.NodeSchema, {
    id: node.id,
    hotkey: node.hotkey,
    capacity: fromResources(node.capacity),
    free: fromResources(view.free),
    connected: view.connected,
    lastSeenAtMs: BigInt(node.lastSeenAtMs),
    workloads: [...node.workloads],
  });
}
