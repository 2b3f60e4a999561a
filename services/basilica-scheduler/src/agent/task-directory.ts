import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

/** What an agent must remember of a task to find it again in a next life. */
export interface TaskMeta {
  readonly jobId: string;
  readonly task: string;
  readonly attempt: number;
  readonly workload: string;
  readonly startedAtMs: number;
  /** Boot of the machine that it runs in; process ids mean nothing after the next one. */
  readonly bootId: string;
  /** A stop was asked for: its end is not a failure. */
  stopping: boolean;
  /** Present once the task has ended and its end is worked out. */
  end: TaskEnd | undefined;
  /** The scheduler holds the end; nothing is left to report. */
  acknowledged: boolean;
}

/** How a task ended. */
export interface TaskEnd {
  readonly outcome: "SUCCEEDED" | "FAILED" | "STOPPED";
  readonly failureClass: "PREEMPTED" | "USER_ERROR" | "NODE_LOST" | "PLATFORM" | undefined;
  readonly exitCode: number;
  readonly signal: string;
  readonly reason: string;
}

/** How far a running task has been metered and its output read. */
export interface TaskProgress {
  readonly meteredToMs: number;
  readonly meteredCpuMicros: number;
  readonly outOffset: number;
  readonly errOffset: number;
}

/** Process ids that the shim wrote. */
export interface ShimPids {
  readonly shimPid: number;
  readonly shimStartTicks: number;
  readonly workloadPid: number;
}

const smallFileBytesMax = 64 * 1024;
const safeName = /^[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?$/;

/** The directory of one task: its configuration, output, and what survives the agent. */
export class TaskDirectory {
  readonly path: string;

  /** Names come from the network: only what cannot leave the root is accepted. */
  constructor(root: string, jobId: string, task: string) {
    if (!safeName.test(jobId) || !safeName.test(task)) {
      throw new RangeError("job id or task name is not a plain name");
    }
    this.path = join(root, jobId, task);
  }

  get configFile(): string {
    return join(this.path, "config.json");
  }

  get readyFile(): string {
    return join(this.path, "ready.json");
  }

  get outFile(): string {
    return join(this.path, "stdout.log");
  }

  get errFile(): string {
    return join(this.path, "stderr.log");
  }

  /** Makes the directory fit for a new start: nothing of an earlier start is left but its output. */
  prepare(configJson: string): void {
    mkdirSync(this.path, { recursive: true, mode: 0o700 });
    for (const name of ["exit", "pids", "times", "ready.json", "progress.json"]) {
      rmSync(join(this.path, name), { force: true });
    }
    // Configurations may name secrets.
    writeFileSync(this.configFile, configJson, { mode: 0o600 });
  }

  writeMeta(meta: TaskMeta): void {
    replaceFile(join(this.path, "task.json"), JSON.stringify(meta));
  }

  readMeta(): TaskMeta | undefined {
    return readJson(join(this.path, "task.json")) as TaskMeta | undefined;
  }

  writeProgress(progress: TaskProgress): void {
    replaceFile(join(this.path, "progress.json"), JSON.stringify(progress));
  }

  readProgress(): TaskProgress | undefined {
    return readJson(join(this.path, "progress.json")) as TaskProgress | undefined;
  }

  readPids(): ShimPids | undefined {
    const parts = readSmall(join(this.path, "pids"))?.trim().split(" ").map(Number);
    if (parts === undefined || parts.length !== 3 || !parts.every(Number.isSafeInteger))
      return undefined;
    return { shimPid: parts[0]!, shimStartTicks: parts[1]!, workloadPid: parts[2]! };
  }

  /** Exit status as a shell tells it; undefined while the workload runs or when it was cut off. */
  readExit(): number | undefined {
    const status = Number(readSmall(join(this.path, "exit"))?.trim() || Number.NaN);
    return Number.isInteger(status) ? status : undefined;
  }

  /** Processor time of an ended workload with its children, microseconds; undefined if not known. */
  readCpuMicros(): number | undefined {
    // Second line of the shell's `times`: user and system time of its children, "1m2.34s 0m0.56s".
    const [, children] = readSmall(join(this.path, "times"))?.split("\n") ?? [];
    const parts = [...(children ?? "").matchAll(/(\d+)m(\d+(?:\.\d+)?)s/g)];
    if (parts.length !== 2) return undefined;
    const seconds = parts.reduce(
      (sum, [, minutes, rest]) => sum + 60 * Number(minutes) + Number(rest),
      0,
    );
    return Math.round(seconds * 1_000_000);
  }

  /** The address that the workload announced, once it has. */
  readEndpoint(): string | undefined {
    const ready = readJson(this.readyFile) as { endpoint?: unknown } | undefined;
    const endpoint = ready?.endpoint;
    return typeof endpoint === "string" && /^[\w.:[\]-]{1,255}:\d{1,5}$/.test(endpoint)
      ? endpoint
      : undefined;
  }
}

/** All task directories that a previous life left, oldest first. */
export function listTaskDirectories(
  root: string,
): { directory: TaskDirectory; modifiedAtMs: number }[] {
  const found: { directory: TaskDirectory; modifiedAtMs: number }[] = [];
  for (const jobId of listNames(root)) {
    for (const task of listNames(join(root, jobId))) {
      if (!safeName.test(jobId) || !safeName.test(task)) continue;
      const directory = new TaskDirectory(root, jobId, task);
      found.push({ directory, modifiedAtMs: statSync(directory.path).mtimeMs });
    }
  }
  return found.sort((a, b) => a.modifiedAtMs - b.modifiedAtMs);
}

function listNames(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function replaceFile(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

function readSmall(path: string): string | undefined {
  try {
    if (statSync(path).size > smallFileBytesMax) return undefined;
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function readJson(path: string): unknown {
  const text = readSmall(path);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
