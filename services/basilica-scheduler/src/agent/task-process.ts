import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Clock, Logger } from "@covenant/runtime";
import { describeEnd } from "./exit-status.ts";
import type { LogLimits } from "./log-tail.ts";
import { LogTail } from "./log-tail.ts";
import type { GroupUse } from "./process-info.ts";
import { isAlive, readBootId, readProcess } from "./process-info.ts";
import type { ShimPids, TaskDirectory, TaskEnd, TaskMeta } from "./task-directory.ts";

const shimFile = fileURLToPath(new URL("./shim.sh", import.meta.url));
/** How long the shim may take to write its process ids. */
const shimStartMsMax = 10_000;

/** What a task tells its agent. */
export interface TaskObserver {
  /** The process is there, or has announced its endpoint. */
  running(task: TaskProcess): void;
  ended(task: TaskProcess, end: TaskEnd): void;
  logs(task: TaskProcess, lines: string[], dropped: number): void;
}

/** How a workload is started. */
export interface LaunchCommand {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly environment: Readonly<Record<string, string>>;
}

/** Measured between two samples. */
export interface TaskUse {
  readonly fromMs: number;
  readonly toMs: number;
  readonly cpuMicros: number;
  readonly rssBytes: number;
  readonly peakRssBytes: number;
}

/**
 * One start of one task, as a process group of its own under a shim. Neither blocks on it nor dies
 * with it: everything it says is a file in its directory, polled by the agent.
 */
export class TaskProcess {
  readonly meta: TaskMeta;
  readonly directory: TaskDirectory;
  pids: ShimPids | undefined;
  endpoint = "";
  readonly #observer: TaskObserver;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #out: LogTail;
  readonly #err: LogTail;
  readonly #launchedAtMs: number;
  #spawnError: string | undefined;
  #spawnedPid: number | undefined;
  #killAtMs: number | undefined;
  #use: GroupUse = { cpuMicros: 0, rssBytes: 0, peakRssBytes: 0 };
  #meteredToMs: number;
  #meteredCpuMicros = 0;

  constructor(
    options: { meta: TaskMeta; directory: TaskDirectory; logLimits: LogLimits },
    modules: { observer: TaskObserver; clock: Clock; logger: Logger },
  ) {
    this.meta = options.meta;
    this.directory = options.directory;
    this.#observer = modules.observer;
    this.#clock = modules.clock;
    this.#logger = modules.logger;
    this.#launchedAtMs = modules.clock.nowMs();
    const progress = options.directory.readProgress();
    this.#meteredToMs = progress?.meteredToMs ?? options.meta.startedAtMs;
    this.#meteredCpuMicros = progress?.meteredCpuMicros ?? 0;
    const tail = (path: string, offset: number): LogTail =>
      new LogTail({ path, offset, limits: options.logLimits });
    this.#out = tail(options.directory.outFile, progress?.outOffset ?? 0);
    this.#err = tail(options.directory.errFile, progress?.errOffset ?? 0);
  }

  get key(): string {
    return `${this.meta.jobId}/${this.meta.task}`;
  }

  get hasEnded(): boolean {
    return this.meta.end !== undefined;
  }

  /** Starts the workload; a failure to do so shows as the task's end. */
  launch(launch: LaunchCommand): void {
    const { directory } = this;
    const environment = {
      ...launch.environment,
      COVENANT_READY_FILE: directory.readyFile,
      COVENANT_TASK_DIRECTORY: directory.path,
    };
    const out = openSync(directory.outFile, "a", 0o600);
    const err = openSync(directory.errFile, "a", 0o600);
    const command = [...launch.command, "--config", directory.configFile];
    const child = spawn("/bin/sh", [shimFile, directory.path, ...command], {
      cwd: launch.cwd,
      env: environment,
      stdio: ["ignore", out, err],
      detached: true,
    });
    closeSync(out);
    closeSync(err);
    this.#spawnedPid = child.pid;
    child.on("error", (error) => {
      this.#spawnError = error.message;
    });
    child.on("exit", () => this.poll());
    // The agent may end while the workload goes on.
    child.unref();
  }

  /** Looks at the files and the process, and reports what is new. */
  poll(): void {
    if (this.hasEnded) return;
    if (this.pids === undefined) {
      this.pids = this.directory.readPids();
      if (this.pids !== undefined) this.#observer.running(this);
    }
    if (this.endpoint === "" && this.pids !== undefined) {
      const endpoint = this.directory.readEndpoint();
      if (endpoint !== undefined) {
        this.endpoint = endpoint;
        this.#observer.running(this);
      }
    }
    this.#readLogs(false);
    if (this.#killAtMs !== undefined && this.#clock.nowMs() >= this.#killAtMs)
      this.signal("SIGKILL");
    const end = this.#findEnd();
    if (end !== undefined) this.#finish(end);
  }

  /** SIGTERM now, SIGKILL after the grace period; the end is reported as stopped. */
  stop(graceMs: number): void {
    if (this.hasEnded) return;
    const killAtMs = this.#clock.nowMs() + graceMs;
    this.#killAtMs = Math.min(this.#killAtMs ?? killAtMs, killAtMs);
    if (this.meta.stopping) return;
    this.meta.stopping = true;
    this.directory.writeMeta(this.meta);
    this.signal("SIGTERM");
  }

  /** Records that the scheduler holds the end. */
  acknowledge(): void {
    this.meta.acknowledged = true;
    this.directory.writeMeta(this.meta);
  }

  /** Sends a signal to every process of the group. */
  signal(name: NodeJS.Signals): void {
    const group = this.group;
    if (group === undefined) return;
    try {
      process.kill(-group, name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  /** The process group; equal to the shim's pid. None after the machine was started again. */
  get group(): number | undefined {
    if (this.meta.bootId !== readBootId()) return undefined;
    return this.pids?.shimPid ?? this.#spawnedPid;
  }

  /** Takes a measurement of the group. */
  observe(use: GroupUse | undefined): void {
    if (use === undefined) return;
    this.#use = {
      // A process that ended unwaited takes its time with it; the count never goes back.
      cpuMicros: Math.max(this.#use.cpuMicros, use.cpuMicros),
      rssBytes: use.rssBytes,
      peakRssBytes: Math.max(this.#use.peakRssBytes, use.peakRssBytes),
    };
  }

  /**
   * Use since the last call. What it returns is recorded as metered first, so that an agent that
   * dies right after never counts it twice.
   */
  takeUse(): TaskUse {
    const toMs = Math.max(this.#clock.nowMs(), this.#meteredToMs);
    const cpuMicros = Math.max(0, this.#use.cpuMicros - this.#meteredCpuMicros);
    const use = {
      fromMs: this.#meteredToMs,
      toMs,
      cpuMicros,
      rssBytes: this.#use.rssBytes,
      peakRssBytes: this.#use.peakRssBytes,
    };
    this.#meteredToMs = toMs;
    this.#meteredCpuMicros += cpuMicros;
    this.directory.writeProgress({
      meteredToMs: toMs,
      meteredCpuMicros: this.#meteredCpuMicros,
      outOffset: this.#out.offset,
      errOffset: this.#err.offset,
    });
    return use;
  }

  #readLogs(final: boolean): void {
    for (const tail of [this.#out, this.#err]) {
      let more = true;
      // Output is bounded on disk, so that the last read of an ended task ends too.
      while (more) {
        const read = tail.poll(this.#clock.nowMs(), final);
        more = read.more && final;
        if (read.lines.length > 0 || read.dropped > 0) {
          this.#observer.logs(this, read.lines, read.dropped);
        }
      }
    }
  }

  #findEnd(): TaskEnd | undefined {
    if (this.#spawnError !== undefined) {
      const reason = `its process could not be started: ${this.#spawnError}`;
      return { outcome: "FAILED", failureClass: "PLATFORM", exitCode: 0, signal: "", reason };
    }
    const status = this.directory.readExit();
    if (status !== undefined) return describeEnd(status, this.meta.stopping);
    if (this.pids !== undefined) {
      const sameBoot = this.group !== undefined;
      if (sameBoot && isAlive(this.pids.shimPid, this.pids.shimStartTicks)) return undefined;
      if (sameBoot && this.#workloadLingers(this.pids)) return undefined;
      // The shim may have written the status and ended since it was read above.
      return describeEnd(this.directory.readExit(), this.meta.stopping);
    }
    if (this.#clock.nowMs() - this.#launchedAtMs < shimStartMsMax) return undefined;
    this.signal("SIGKILL");
    const reason = "its process did not appear in time";
    return { outcome: "FAILED", failureClass: "PLATFORM", exitCode: 0, signal: "", reason };
  }

  /** A workload that lost its shim is killed, and counts as ended when it is gone. */
  #workloadLingers({ shimPid, workloadPid }: ShimPids): boolean {
    const workload = readProcess(workloadPid);
    const lingers = workload?.processGroup === shimPid && !workload.isZombie;
    if (lingers) this.signal("SIGKILL");
    return lingers;
  }

  #finish(end: TaskEnd): void {
    this.#readLogs(true);
    // Whatever the workload left behind in its group goes with it.
    this.signal("SIGKILL");
    const cpuMicros = this.directory.readCpuMicros();
    if (cpuMicros !== undefined) this.observe({ ...this.#use, cpuMicros });
    this.meta.end = end;
    this.directory.writeMeta(this.meta);
    this.#logger.info({ task: this.key, attempt: this.meta.attempt, end }, "task ended");
    this.#observer.ended(this, end);
  }
}
