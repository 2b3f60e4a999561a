import { existsSync, rmSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { StartTask, StopTask, TaskEvent } from "@covenant/contracts/basilica";
import {
  FailureClass,
  LogLinesSchema,
  MeterSampleSchema,
  TaskEventSchema,
  TaskState,
} from "@covenant/contracts/basilica";
import type { Clock, Logger } from "@covenant/runtime";
import type { LogLimits } from "./log-tail.ts";
import type { Outbox } from "./outbox.ts";
import { readBootId, readGroups } from "./process-info.ts";
import type { TaskEnd, TaskMeta } from "./task-directory.ts";
import { listTaskDirectories, TaskDirectory } from "./task-directory.ts";
import type { LaunchCommand, TaskObserver } from "./task-process.ts";
import { TaskProcess } from "./task-process.ts";

/** Grace period when the scheduler names none. */
const defaultGraceSeconds = 15;

/** What an agent is made of. */
export interface NodeAgentOptions {
  readonly tasksRoot: string;
  readonly workloads: Readonly<Record<string, LaunchCommand>>;
  readonly logLimits: LogLimits;
  /** Directories of ended tasks that are kept for their logs. */
  readonly endedTasksMax: number;
}

/**
 * Runs the tasks of one node. Knows nothing of the connection: commands come in by method calls,
 * reports go to the outbox. Tasks survive the agent and are taken over by the next one.
 */
export class NodeAgent implements TaskObserver {
  readonly #options: NodeAgentOptions;
  readonly #outbox: Outbox;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** By "job/task"; ended ones stay until the scheduler has acknowledged the end. */
  readonly #tasks = new Map<string, TaskProcess>();
  /** A start that waits for the end of the task's earlier process. */
  readonly #next = new Map<string, StartTask>();

  constructor(
    options: NodeAgentOptions,
    modules: { outbox: Outbox; clock: Clock; logger: Logger },
  ) {
    this.#options = options;
    this.#outbox = modules.outbox;
    this.#clock = modules.clock;
    this.#logger = modules.logger;
  }

  /** Takes over what a previous life of the agent left running, and reports what ended meanwhile. */
  recover(): void {
    const kept: string[] = [];
    for (const { directory } of listTaskDirectories(this.#options.tasksRoot)) {
      const meta = directory.readMeta();
      if (meta === undefined || meta.acknowledged) {
        kept.push(directory.path);
        continue;
      }
      const task = this.#process(meta, directory);
      this.#tasks.set(task.key, task);
      this.#logger.info({ task: task.key, attempt: meta.attempt }, "task of an earlier life found");
      if (task.hasEnded) this.#report(task);
      else task.poll();
      // Asked to stop, and the agent died before the grace period was over: it begins again.
      if (meta.stopping && !task.hasEnded) task.stop(defaultGraceSeconds * 1_000);
    }
    for (const path of kept.slice(0, Math.max(0, kept.length - this.#options.endedTasksMax))) {
      rmSync(path, { recursive: true, force: true });
    }
  }

  /** Every task whose end is not acknowledged, as the scheduler wants to see it in a greeting. */
  known(): TaskEvent[] {
    return [...this.#tasks.values()].map((task) => describe(task));
  }

  /** Number of live processes. */
  get runningCount(): number {
    return [...this.#tasks.values()].filter((task) => !task.hasEnded).length;
  }

  /** Starts a task; a start that is known already only repeats the report. */
  start(command: StartTask): void {
    const key = `${command.jobId}/${command.spec?.name}`;
    const present = this.#tasks.get(key);
    if (present !== undefined && present.meta.attempt >= command.attempt) {
      this.#report(present);
      return;
    }
    if (present !== undefined && !present.hasEnded) {
      this.#next.set(key, command);
      present.stop(graceMs(command.spec?.graceSeconds));
      return;
    }
    this.#launch(command);
  }

  /** Stops a task; one that is unknown or has ended already needs no answer beyond its end. */
  stop(command: StopTask): void {
    const key = `${command.jobId}/${command.task}`;
    const waiting = this.#next.get(key);
    if (waiting !== undefined && reaches(command, waiting.attempt)) this.#next.delete(key);
    const task = this.#tasks.get(key);
    if (task === undefined || !reaches(command, task.meta.attempt)) return;
    if (task.hasEnded) this.#report(task);
    else task.stop(graceMs(command.graceSeconds));
  }

  /** Forgets ended tasks once the scheduler holds their end. */
  acknowledged(events: readonly TaskEvent[]): void {
    for (const event of events) {
      const key = `${event.jobId}/${event.task}`;
      const task = this.#tasks.get(key);
      if (task?.hasEnded && task.meta.attempt === event.attempt && isEnd(event.state)) {
        this.#tasks.delete(key);
        task.acknowledge();
      }
    }
  }

  /** Looks at every task; called several times a second. */
  poll(): void {
    for (const task of this.#tasks.values()) this.#guard(task, () => task.poll());
  }

  /** Measures every task; called every second. */
  observe(): void {
    const live = [...this.#tasks.values()].filter((task) => !task.hasEnded);
    const groups = new Set(live.flatMap((task) => task.group ?? []));
    const uses = readGroups(groups);
    for (const task of live) task.observe(uses.get(task.group ?? -1));
  }

  /** Reports what was measured since the last call. */
  meter(): void {
    for (const task of this.#tasks.values()) if (!task.hasEnded) this.#meter(task);
  }

  /** Stops every task and waits for the ends; those ends are the node's doing, not the task's. */
  async stopAll(signal: AbortSignal): Promise<void> {
    this.#next.clear();
    for (const task of this.#tasks.values()) task.stop(defaultGraceSeconds * 1_000);
    while (this.runningCount > 0 && !signal.aborted) {
      await this.#clock.sleep(50);
      this.poll();
    }
  }

  running(task: TaskProcess): void {
    this.#report(task);
  }

  ended(task: TaskProcess, _end: TaskEnd): void {
    this.#meter(task);
    this.#report(task);
    rmSync(task.directory.configFile, { force: true });
    const next = this.#next.get(task.key);
    if (next === undefined) return;
    this.#next.delete(task.key);
    this.#launch(next);
  }

  logs(task: TaskProcess, lines: string[], dropped: number): void {
    const { jobId, task: name } = task.meta;
    const value = { jobId, task: name, lines, droppedLines: BigInt(dropped) };
    this.#outbox.add({ case: "logs", value: create(LogLinesSchema, value) });
  }

  #launch(command: StartTask): void {
    const { spec } = command;
    if (spec === undefined) return;
    const directory = new TaskDirectory(this.#options.tasksRoot, command.jobId, spec.name);
    const meta: TaskMeta = {
      jobId: command.jobId,
      task: spec.name,
      attempt: command.attempt,
      workload: spec.workload,
      startedAtMs: this.#clock.nowMs(),
      bootId: readBootId(),
      stopping: false,
      end: undefined,
      acknowledged: false,
    };
    directory.prepare(spec.configJson);
    // Written before the process exists: a process without a record could never be found again.
    directory.writeMeta(meta);
    const task = this.#process(meta, directory);
    this.#tasks.set(task.key, task);
    const launch = this.#options.workloads[spec.workload];
    if (launch === undefined) {
      this.#refuse(task, `this node does not offer the workload "${spec.workload}"`);
    } else if (!existsSync(launch.cwd)) {
      this.#refuse(task, `the working directory ${launch.cwd} does not exist`);
    } else {
      this.#guard(task, () => task.launch(launch));
      this.#logger.info({ task: task.key, attempt: meta.attempt }, "task started");
    }
  }

  #process(meta: TaskMeta, directory: TaskDirectory): TaskProcess {
    const options = { meta, directory, logLimits: this.#options.logLimits };
    return new TaskProcess(options, { observer: this, clock: this.#clock, logger: this.#logger });
  }

  /** The world may fail a task (disk full, no more processes); it must not take the agent along. */
  #guard(task: TaskProcess, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#logger.error({ task: task.key, error: String(error) }, "task could not be handled");
      if (!task.hasEnded && task.pids === undefined) this.#refuse(task, String(error));
    }
  }

  #refuse(task: TaskProcess, reason: string): void {
    const end = { outcome: "FAILED", failureClass: "PLATFORM", exitCode: 0, signal: "" } as const;
    task.meta.end = { ...end, reason };
    this.#report(task);
  }

  #report(task: TaskProcess): void {
    this.#outbox.add({ case: "task", value: describe(task) });
  }

  #meter(task: TaskProcess): void {
    const use = task.takeUse();
    const value = create(MeterSampleSchema, {
      jobId: task.meta.jobId,
      task: task.meta.task,
      fromMs: BigInt(use.fromMs),
      toMs: BigInt(use.toMs),
      cpuMicros: BigInt(use.cpuMicros),
      rssBytes: BigInt(use.rssBytes),
      peakRssBytes: BigInt(use.peakRssBytes),
    });
    this.#outbox.add({ case: "meter", value });
  }
}

function describe(task: TaskProcess): TaskEvent {
  const { jobId, task: name, attempt, end } = task.meta;
  if (end === undefined) {
    const state = task.pids === undefined ? TaskState.STARTING : TaskState.RUNNING;
    const pid = task.pids?.workloadPid ?? 0;
    return create(TaskEventSchema, {
      jobId,
      task: name,
      attempt,
      state,
      pid,
      endpoint: task.endpoint,
    });
  }
  const { exitCode, signal, reason } = end;
  const state = TaskState[end.outcome];
  const failureClass = FailureClass[end.failureClass ?? "UNSPECIFIED"];
  return create(TaskEventSchema, {
    jobId,
    task: name,
    attempt,
    state,
    exitCode,
    signal,
    reason,
    failureClass,
  });
}

function isEnd(state: TaskState): boolean {
  return state === TaskState.SUCCEEDED || state === TaskState.FAILED || state === TaskState.STOPPED;
}

function graceMs(seconds: number | undefined): number {
  return (seconds || defaultGraceSeconds) * 1_000;
}

function reaches(command: StopTask, attempt: number): boolean {
  return command.attempt === 0 || command.attempt >= attempt;
}
