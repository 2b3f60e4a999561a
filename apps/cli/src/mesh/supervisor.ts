// Starts the base processes, keeps them running, and stops them in order.
import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, readFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { type Clock, CovenantError, readFileLimited, writeFileAtomic } from "@covenant/runtime";
import type { Layout } from "./layout.ts";

/** One process to keep running. */
export interface ProcessSpec {
  name: string;
  /** Source file that Node runs. */
  entry: string;
  /** Written as JSON and handed over with --config. */
  config: unknown;
}

/** What happened to a base process, for the show. */
export interface SupervisorEvent {
  name: string;
  kind: "started" | "exited" | "restarting" | "gave-up";
  detail: string;
}

interface Running {
  spec: ProcessSpec;
  child: ChildProcess;
  restarts: number;
  stopping: boolean;
}

const restartsMax = 20;
const restartDelayMaxMs = 5_000;
const readyTimeoutMs = 60_000;
const readyPollMs = 50;
const logTailBytes = 2_000;
const recordBytesMax = 64 << 10;

/** Keeps child processes alive until told to stop; a crash costs a restart, not the mesh. */
export class Supervisor {
  readonly #layout: Layout;
  readonly #clock: Clock;
  readonly #onEvent: (event: SupervisorEvent) => void;
  readonly #running = new Map<string, Running>();
  #fatal: ((error: CovenantError) => void) | undefined;
  /** Rejects when a process has died more often than the budget allows. */
  readonly failed: Promise<never>;

  constructor(
    options: { layout: Layout },
    modules: { clock: Clock; onEvent: (event: SupervisorEvent) => void },
  ) {
    this.#layout = options.layout;
    this.#clock = modules.clock;
    this.#onEvent = modules.onEvent;
    this.failed = new Promise((_, reject) => {
      this.#fatal = reject;
    });
    this.failed.catch(() => {});
  }

  /** Process ids of everything that runs now. */
  pids(): { name: string; pid: number }[] {
    return [...this.#running.values()].flatMap(({ spec, child }) =>
      child.pid === undefined ? [] : [{ name: spec.name, pid: child.pid }],
    );
  }

  /** Starts a process and waits until it serves. @returns its "host:port". */
  async start(spec: ProcessSpec): Promise<string> {
    const configFile = path.join(this.#layout.configs, `${spec.name}.json`);
    await writeFileAtomic(configFile, Buffer.from(JSON.stringify(spec.config, null, 2)), {
      mode: 0o600,
    });
    await mkdir(this.#layout.dataOf(spec.name), { recursive: true });
    await rm(this.#readyFile(spec.name), { force: true });
    this.#spawn(spec, 0);
    return this.#waitUntilReady(spec.name);
  }

  /** Stops one process: SIGTERM, then SIGKILL after the grace period. */
  async stop(name: string, graceMs: number): Promise<void> {
    const entry = this.#running.get(name);
    if (!entry) return;
    entry.stopping = true;
    this.#running.delete(name);
    await terminate(entry.child, graceMs, this.#clock);
    await this.#record();
  }

  #readyFile(name: string): string {
    return path.join(this.#layout.configs, `${name}.ready.json`);
  }

  #spawn(spec: ProcessSpec, restarts: number): void {
    const log = createWriteStream(path.join(this.#layout.logs, `${spec.name}.log`), { flags: "a" });
    // A log that cannot be written (full disk) must not take the process down with it.
    log.on("error", () => {});
    const child = spawn(
      process.execPath,
      [spec.entry, "--config", path.join(this.#layout.configs, `${spec.name}.json`)],
      {
        // Its own group: Ctrl-C reaches only us, and we stop everything in order.
        detached: true,
        stdio: ["ignore", "pipe", "pipe"],
        env: {
          ...process.env,
          NODE_NO_WARNINGS: "1",
          COVENANT_READY_FILE: this.#readyFile(spec.name),
        },
      },
    );
    child.stdout?.pipe(log, { end: false });
    child.stderr?.pipe(log, { end: false });
    const entry: Running = { spec, child, restarts, stopping: false };
    this.#running.set(spec.name, entry);
    child.once("spawn", () => {
      this.#onEvent({ name: spec.name, kind: "started", detail: `pid ${child.pid}` });
      void this.#record();
    });
    child.once("exit", (code, signal) => {
      log.end();
      if (entry.stopping) return;
      void this.#onExit(entry, signal ? `signal ${signal}` : `exit code ${code}`);
    });
  }

  async #onExit(entry: Running, how: string): Promise<void> {
    const { name } = entry.spec;
    this.#onEvent({ name, kind: "exited", detail: how });
    if (entry.restarts >= restartsMax) {
      this.#onEvent({ name, kind: "gave-up", detail: how });
      this.#fatal?.(this.#deathOf(name, how));
      return;
    }
    const delayMs = Math.min(restartDelayMaxMs, 250 * 2 ** entry.restarts);
    await this.#clock.sleep(delayMs);
    if (entry.stopping) return;
    this.#onEvent({
      name,
      kind: "restarting",
      detail: `attempt ${entry.restarts + 1} of ${restartsMax}`,
    });
    this.#spawn(entry.spec, entry.restarts + 1);
  }

  async #waitUntilReady(name: string): Promise<string> {
    const deadlineMs = this.#clock.nowMs() + readyTimeoutMs;
    const earlyExitsMax = 2;
    while (this.#clock.nowMs() < deadlineMs) {
      const ready = await readFileLimited(this.#readyFile(name), 4096).catch(() => undefined);
      if (ready)
        return (JSON.parse(Buffer.from(ready).toString()) as { endpoint: string }).endpoint;
      const entry = this.#running.get(name);
      if (!entry || entry.restarts >= earlyExitsMax) throw this.#deathOf(name, "it exits at start");
      await this.#clock.sleep(readyPollMs);
    }
    throw this.#deathOf(name, `it did not serve within ${readyTimeoutMs / 1000} s`);
  }

  #deathOf(name: string, how: string): CovenantError {
    const file = path.join(this.#layout.logs, `${name}.log`);
    return new CovenantError(
      "COV_PROCESS_FAILED",
      `${name} does not run: ${how}. ${lastWords(file)}`,
      {
        remedy: `Read ${file}; a second start resumes where this one stopped.`,
      },
    );
  }

  /** Remembers what runs, so that a start after a crash of ours can clear it away. */
  async #record(): Promise<void> {
    const entries = this.pids().map(({ name, pid }) => ({ name, pid, startedAt: startTicks(pid) }));
    await writeFileAtomic(recordFile(this.#layout), Buffer.from(JSON.stringify(entries))).catch(
      () => {},
    );
  }
}

const recordFile = (layout: Layout) => path.join(layout.root, "processes.json");

/** Stops base processes that an earlier `covenant up` left behind when it was killed. */
export async function clearLeftovers(layout: Layout, clock: Clock): Promise<string[]> {
  const bytes = await readFileLimited(recordFile(layout), recordBytesMax).catch(() => undefined);
  if (!bytes) return [];
  const entries = parseRecord(Buffer.from(bytes).toString());
  const cleared: string[] = [];
  for (const { name, pid, startedAt } of entries) {
    // The same pid with another start time is somebody else's process.
    if (startedAt === undefined || startTicks(pid) !== startedAt) continue;
    signal(pid, "SIGTERM");
    for (let waitedMs = 0; waitedMs < 5_000 && startTicks(pid) === startedAt; waitedMs += 100) {
      await clock.sleep(100);
    }
    if (startTicks(pid) === startedAt) signal(pid, "SIGKILL");
    cleared.push(name);
  }
  await rm(recordFile(layout), { force: true });
  return cleared;
}

interface RecordEntry {
  name: string;
  pid: number;
  startedAt?: string;
}

function parseRecord(text: string): RecordEntry[] {
  try {
    const parsed: unknown = JSON.parse(text);
    return Array.isArray(parsed) ? (parsed as RecordEntry[]) : [];
  } catch {
    return [];
  }
}

/** Start time of a process in clock ticks since boot: with the pid it names a process for good. */
export function startTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Already gone.
  }
}

async function terminate(child: ChildProcess, graceMs: number, clock: Clock): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const stopped = new AbortController();
  const timeout = clock.sleep(graceMs, stopped.signal).then(
    () => "timeout" as const,
    () => "stopped" as const,
  );
  const first = await Promise.race([exited.then(() => "exited" as const), timeout]);
  stopped.abort();
  if (first === "timeout") {
    child.kill("SIGKILL");
    await exited;
  }
}

/** The last error a process logged, in words, for the message people see first. */
function lastWords(file: string): string {
  try {
    const lines = readFileSync(file, "utf8").slice(-logTailBytes).trim().split("\n").reverse();
    for (const line of lines) {
      try {
        const entry = JSON.parse(line) as { level?: number; msg?: string };
        if ((entry.level ?? 0) >= 50 && entry.msg) return `It said: ${entry.msg}`;
      } catch {
        // Not a log record: a stack trace or the half line at the cut.
      }
    }
    return lines[0] ? `Its last line: ${lines[0].slice(0, 300)}` : "It said nothing.";
  } catch {
    return "It left no log.";
  }
}
