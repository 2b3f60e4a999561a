import type {
  Effect,
  EndReport,
  JobEvent,
  JobPolicy,
  JobRecord,
  JobSpec,
  RunningReport,
  TaskRecord,
  TaskSpec,
} from "./job.ts";
import { isActiveTask, isFinalJob, isFinalTask } from "./job.ts";
import type { FailureClass } from "./restart.ts";
import { decideRestart, noFailures } from "./restart.ts";

/** A job after an event, and what nodes must be told once it is stored. */
export interface Transition {
  /** The same object as before when nothing changed. */
  readonly job: JobRecord;
  readonly effects: readonly Effect[];
}

/** A new job in PENDING. */
export function createJob(id: string, owner: string, spec: JobSpec, nowMs: number): JobRecord {
  return {
    id,
    owner,
    spec,
    state: "PENDING",
    reason: "waits for its first placement",
    tasks: spec.tasks.map((task) => newTask(task)),
    createdAtMs: nowMs,
    changedAtMs: nowMs,
    startedAtMs: undefined,
    deadlineAtMs: nowMs + spec.pendingTimeoutSeconds * 1_000,
    ending: undefined,
  };
}

function newTask(spec: TaskSpec): TaskRecord {
  return {
    name: spec.name,
    state: "PENDING",
    reason: "waits for the gang",
    nodeId: "",
    attempt: 0,
    restarts: 0,
    failures: noFailures,
    failureClass: undefined,
    exitCode: undefined,
    signal: "",
    pid: 0,
    endpoint: "",
    peakRssBytes: 0,
    notBeforeMs: undefined,
    deadlineAtMs: undefined,
  };
}

/**
 * Applies one event to a job. Pure and total: an event that does not fit the present state changes
 * nothing. Every state that is not final has a deadline, so that ticks alone end every job.
 */
export function reduceJob(
  before: JobRecord,
  event: JobEvent,
  nowMs: number,
  policy: JobPolicy,
): Transition {
  if (isFinalJob(before.state)) return { job: before, effects: [] };
  const machine = new Machine({ job: structuredClone(before), nowMs, policy });
  machine.apply(event);
  if (!machine.changed) return { job: before, effects: [] };
  machine.settle();
  machine.job.changedAtMs = nowMs;
  return { job: machine.job, effects: machine.effects };
}

/** One transition in the making: a private copy of the job, and the effects so far. */
class Machine {
  readonly job: JobRecord;
  readonly effects: Effect[] = [];
  changed = false;
  readonly #nowMs: number;
  readonly #policy: JobPolicy;

  constructor(options: { job: JobRecord; nowMs: number; policy: JobPolicy }) {
    this.job = options.job;
    this.#nowMs = options.nowMs;
    this.#policy = options.policy;
  }

  apply(event: JobEvent): void {
    switch (event.type) {
      case "placed":
        this.#placed(event.assignment);
        return;
      case "waiting":
        if (this.job.state === "PENDING" && this.job.reason !== event.reason)
          this.#reason(event.reason);
        return;
      case "begin":
        this.#begin();
        return;
      case "task-running":
        this.#running(event.report);
        return;
      case "task-ended":
        this.#ended(event.report);
        return;
      case "task-lost":
        this.#lost(event.task, event.reason);
        return;
      case "task-replaced":
        this.#replaced(event.task, event.nodeId);
        return;
      case "task-peak":
        this.#peak(event.task, event.peakRssBytes);
        return;
      case "cancel":
        this.#end("CANCELLED", event.reason);
        return;
      case "tick":
        this.#tick();
        return;
    }
  }

  /** Brings the job's own state in line with its tasks. */
  settle(): void {
    const { job } = this;
    if (job.state === "CANCELLING" && job.tasks.every((task) => isFinalTask(task.state))) {
      const ending = job.ending!;
      this.#enter(ending.state, ending.reason, undefined);
      return;
    }
    if (job.state !== "STARTING" && job.state !== "RUNNING") return;
    if (job.tasks.every((task) => isFinalTask(task.state))) {
      this.#finish();
      return;
    }
    const waiting = job.tasks.filter((task) => this.#isStillStarting(task));
    if (job.state === "STARTING" && waiting.length === 0) {
      const startedAtMs = job.startedAtMs ?? this.#nowMs;
      this.#enter("RUNNING", "all tasks run", startedAtMs + job.spec.maxRunSeconds * 1_000);
    }
    if (job.state === "RUNNING") this.#reason(describeRunning(job.tasks));
  }

  #finish(): void {
    const failed = this.job.tasks
      .filter((task) => task.state === "FAILED")
      .map((task) => task.name);
    const reason =
      failed.length === 0
        ? "every task ended with success"
        : `every task ended; these were allowed to fail: ${failed.join(", ")}`;
    this.#enter("SUCCEEDED", reason, undefined);
  }

  #placed(assignment: ReadonlyMap<string, string>): void {
    const { job } = this;
    if (job.state !== "PENDING" || !job.tasks.every((task) => assignment.has(task.name))) return;
    for (const task of job.tasks) {
      task.nodeId = assignment.get(task.name)!;
      task.reason = "holds room on its node";
    }
    const nodes = new Set(assignment.values()).size;
    const reason = `room held for ${job.tasks.length} tasks on ${nodes} ${nodes === 1 ? "node" : "nodes"}`;
    this.#enter("RESERVED", reason, this.#nowMs + this.#policy.reservationHoldMs);
  }

  #begin(): void {
    const { job } = this;
    if (job.state !== "RESERVED") return;
    job.startedAtMs = this.#nowMs;
    this.#enter(
      "STARTING",
      "tasks are being started",
      this.#nowMs + this.#policy.gangStartTimeoutMs,
    );
    for (const task of job.tasks) {
      const delaySeconds = this.#spec(task).startDelaySeconds;
      if (delaySeconds === 0) {
        this.#start(task);
      } else {
        task.notBeforeMs = this.#nowMs + delaySeconds * 1_000;
        task.reason = `starts ${delaySeconds} s after the job`;
      }
    }
  }

  #start(task: TaskRecord): void {
    task.attempt += 1;
    task.state = "STARTING";
    task.reason =
      task.attempt === 1 ? "sent to its node" : `sent to its node, start ${task.attempt}`;
    task.pid = 0;
    task.endpoint = "";
    task.exitCode = undefined;
    task.signal = "";
    task.notBeforeMs = undefined;
    task.deadlineAtMs = this.#nowMs + this.#policy.taskStartTimeoutMs;
    this.effects.push({
      type: "start",
      nodeId: task.nodeId,
      task: task.name,
      attempt: task.attempt,
    });
    this.changed = true;
  }

  #running(report: RunningReport): void {
    const task = this.#task(report.task);
    if (task === undefined || task.attempt !== report.attempt || isFinalTask(task.state)) return;
    if (task.state === "PENDING") return;
    if (task.state === "RESTARTING" && task.failureClass !== "NODE_LOST") return;
    if (task.state !== "RESTARTING" && task.nodeId !== report.nodeId) return;
    if (task.state === "RUNNING" && task.pid === report.pid && task.endpoint === report.endpoint)
      return;
    const back = task.state === "RESTARTING";
    if (task.state !== "RUNNING") task.reason = back ? "runs on; its node came back" : "runs";
    task.state = "RUNNING";
    task.nodeId = report.nodeId;
    task.pid = report.pid;
    task.endpoint = report.endpoint;
    task.notBeforeMs = undefined;
    task.deadlineAtMs = undefined;
    this.changed = true;
  }

  #ended(report: EndReport): void {
    const task = this.#task(report.task);
    if (task === undefined || task.attempt !== report.attempt) return;
    // A node that was given up may come back and tell that its task had ended well.
    const isBelated =
      task.state === "RESTARTING" && task.failureClass === "NODE_LOST" && report.succeeded;
    if (!isBelated && (!isActiveTask(task.state) || task.nodeId !== report.nodeId)) return;
    task.exitCode = report.exitCode;
    task.signal = report.signal;
    if (report.succeeded) {
      this.#finalTask(task, "SUCCEEDED", report.reason);
    } else if (this.job.state === "CANCELLING") {
      this.#finalTask(task, "STOPPED", report.reason);
    } else {
      this.#fail(task, report.failureClass ?? "PLATFORM", report.reason);
    }
  }

  #lost(name: string, reason: string): void {
    const task = this.#task(name);
    if (task === undefined || !isActiveTask(task.state)) return;
    if (this.job.state === "CANCELLING") this.#finalTask(task, "STOPPED", reason);
    else this.#fail(task, "NODE_LOST", reason);
  }

  #fail(task: TaskRecord, failureClass: FailureClass, reason: string): void {
    const spec = this.#spec(task);
    task.failures = { ...task.failures, [failureClass]: task.failures[failureClass] + 1 };
    task.failureClass = failureClass;
    const failure = { class: failureClass, exitCode: task.exitCode };
    const decision = decideRestart(failure, task.failures, spec.maxRestarts, this.#policy);
    if (!decision.restart) {
      this.#finalTask(task, "FAILED", `${reason}; ${decision.reason}`);
      if (!spec.allowFailure) this.#end("FAILED", `task "${task.name}" failed: ${task.reason}`);
      return;
    }
    task.state = "RESTARTING";
    task.restarts += 1;
    task.reason = `${reason}; ${decision.reason}`;
    task.pid = 0;
    task.endpoint = "";
    task.notBeforeMs = this.#nowMs + decision.delayMs;
    task.deadlineAtMs = undefined;
    if (failureClass === "NODE_LOST") {
      task.nodeId = "";
      task.deadlineAtMs = this.#nowMs + this.#policy.replacementTimeoutMs;
    }
    this.changed = true;
  }

  #replaced(name: string, nodeId: string): void {
    const task = this.#task(name);
    if (task === undefined || task.state !== "RESTARTING" || task.nodeId !== "") return;
    task.nodeId = nodeId;
    task.deadlineAtMs = undefined;
    this.changed = true;
  }

  #peak(name: string, peakRssBytes: number): void {
    const task = this.#task(name);
    if (task === undefined || peakRssBytes <= task.peakRssBytes) return;
    task.peakRssBytes = peakRssBytes;
    this.changed = true;
  }

  #end(state: "FAILED" | "CANCELLED", reason: string): void {
    const { job } = this;
    if (job.state === "CANCELLING" || isFinalJob(job.state)) return;
    let graceSecondsMax = 0;
    for (const task of job.tasks) {
      if (isActiveTask(task.state)) {
        const { graceSeconds } = this.#spec(task);
        graceSecondsMax = Math.max(graceSecondsMax, graceSeconds);
        this.#stop(task);
        task.reason = `is being stopped: ${reason}`;
        task.deadlineAtMs = undefined;
      } else if (!isFinalTask(task.state)) {
        this.#finalTask(task, "STOPPED", reason);
      }
    }
    job.ending = { state, reason };
    const deadlineAtMs = this.#nowMs + graceSecondsMax * 1_000 + this.#policy.stopMarginMs;
    this.#enter("CANCELLING", reason, deadlineAtMs);
  }

  #stop(task: TaskRecord): void {
    const { graceSeconds } = this.#spec(task);
    const { nodeId, name, attempt } = task;
    this.effects.push({ type: "stop", nodeId, task: name, attempt, graceSeconds });
  }

  #tick(): void {
    const { job } = this;
    const isDue = job.deadlineAtMs !== undefined && this.#nowMs >= job.deadlineAtMs;
    switch (job.state) {
      case "PENDING":
        if (isDue) this.#expirePending();
        return;
      case "RESERVED":
        if (isDue) this.#releaseReservation();
        return;
      case "CANCELLING":
        if (isDue) this.#giveUpStopping();
        return;
      case "STARTING":
        if (isDue) {
          this.#end("FAILED", "the gang did not come up in time");
          return;
        }
        this.#tickTasks();
        return;
      case "RUNNING":
        if (isDue) {
          this.#end("FAILED", `ran longer than ${job.spec.maxRunSeconds} s`);
          return;
        }
        this.#tickTasks();
        return;
      default:
        return;
    }
  }

  #tickTasks(): void {
    for (const task of this.job.tasks) {
      if (this.job.state === "CANCELLING") return;
      const due = task.deadlineAtMs !== undefined && this.#nowMs >= task.deadlineAtMs;
      if (task.state === "STARTING" && due) {
        this.#stop(task);
        this.#fail(task, "PLATFORM", "its node did not confirm the start in time");
      } else if (task.state === "RESTARTING" && task.nodeId === "" && due) {
        this.#finalTask(task, "FAILED", "no node had room for it after its node was lost");
        if (!this.#spec(task).allowFailure) {
          this.#end("FAILED", `task "${task.name}" failed: ${task.reason}`);
        }
      } else if (this.#mayStart(task)) {
        this.#start(task);
      }
    }
  }

  #mayStart(task: TaskRecord): boolean {
    const waits = task.state === "PENDING" || task.state === "RESTARTING";
    return waits && task.nodeId !== "" && this.#nowMs >= (task.notBeforeMs ?? 0);
  }

  #expirePending(): void {
    const { job } = this;
    const reason = `no room within ${job.spec.pendingTimeoutSeconds} s: ${job.reason}`;
    for (const task of job.tasks) this.#finalTask(task, "STOPPED", "the gang was never placed");
    this.#enter("FAILED", reason, undefined);
  }

  #releaseReservation(): void {
    const { job } = this;
    for (const task of job.tasks) {
      task.nodeId = "";
      task.reason = "waits for the gang";
    }
    const deadlineAtMs = job.createdAtMs + job.spec.pendingTimeoutSeconds * 1_000;
    this.#enter("PENDING", "a node of the reservation went away; placed again", deadlineAtMs);
  }

  #giveUpStopping(): void {
    for (const task of this.job.tasks) {
      if (isFinalTask(task.state)) continue;
      this.#finalTask(task, "STOPPED", "its node did not confirm the stop in time");
    }
  }

  #finalTask(task: TaskRecord, state: "SUCCEEDED" | "FAILED" | "STOPPED", reason: string): void {
    task.state = state;
    task.reason = reason;
    task.pid = 0;
    task.endpoint = "";
    task.notBeforeMs = undefined;
    task.deadlineAtMs = undefined;
    this.changed = true;
  }

  #enter(state: JobRecord["state"], reason: string, deadlineAtMs: number | undefined): void {
    this.job.state = state;
    this.job.reason = reason;
    this.job.deadlineAtMs = deadlineAtMs;
    this.changed = true;
  }

  #reason(reason: string): void {
    this.job.reason = reason;
    this.changed = true;
  }

  /** A delayed task that is not due yet does not keep the gang from counting as started. */
  #isStillStarting(task: TaskRecord): boolean {
    if (task.state === "STARTING" || task.state === "RESTARTING") return true;
    return task.state === "PENDING" && task.notBeforeMs === undefined;
  }

  #task(name: string): TaskRecord | undefined {
    return this.job.tasks.find((task) => task.name === name);
  }

  #spec(task: TaskRecord): TaskSpec {
    return this.job.spec.tasks.find((spec) => spec.name === task.name)!;
  }
}

function describeRunning(tasks: readonly TaskRecord[]): string {
  const counts: string[] = [];
  const count = (label: string, states: readonly string[]): void => {
    const names = tasks.filter((task) => states.includes(task.state)).map((task) => task.name);
    if (names.length > 0) counts.push(`${names.length} ${label} (${names.slice(0, 4).join(", ")})`);
  };
  count("restarting", ["RESTARTING", "STARTING"]);
  count("delayed", ["PENDING"]);
  count("ended", ["SUCCEEDED", "STOPPED"]);
  count("failed", ["FAILED"]);
  if (counts.length === 0) return "all tasks run";
  const running = tasks.filter((task) => task.state === "RUNNING").length;
  return `${running} of ${tasks.length} tasks run; ${counts.join("; ")}`;
}
