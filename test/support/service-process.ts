// One real service process with a directory of its own: started, looked at, killed, started again.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { eventually, repository } from "./mesh-process.ts";

const readyTimeoutMs = 120_000;

/** A directory for one test, removed when its `remove` is called. */
export function scratchDirectory(): { directory: string; remove: () => void } {
  const directory = mkdtempSync(path.join(tmpdir(), "covenant-test-"));
  return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) };
}

/** How a start ended: the service serves, or it has exited. */
export type StartOutcome = { endpoint: string } | { exitCode: number };

/** One service; `start` may be called again once it has ended. */
export class ServiceProcess {
  readonly #name: string;
  readonly #directory: string;
  readonly #entry: string;
  #child: ChildProcess | undefined;
  #exited: Promise<number> = Promise.resolve(0);
  #log = "";

  /** @param entry path of the service's main.ts below the repository's root. */
  constructor(name: string, entry: string, directory: string) {
    this.#name = name;
    this.#entry = path.join(repository, entry);
    this.#directory = directory;
    mkdirSync(directory, { recursive: true });
  }

  /** What the process has logged, all lives together. */
  get log(): string {
    return this.#log;
  }

  get isAlive(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it with this configuration; settles when it serves or has ended. */
  async start(config: object): Promise<StartOutcome> {
    const configFile = path.join(this.#directory, `${this.#name}.json`);
    const readyFile = path.join(this.#directory, `${this.#name}.ready.json`);
    rmSync(readyFile, { force: true });
    writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 });
    const child = spawn(process.execPath, [this.#entry, "--config", configFile], {
      env: { ...process.env, COVENANT_READY_FILE: readyFile, NODE_NO_WARNINGS: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (piece: Buffer) => {
        this.#log += piece.toString();
      });
    }
    this.#exited = new Promise((resolve) => {
      child.once("close", (code, signal) => resolve(signal === null ? (code ?? 1) : 128));
    });
    return eventually(`${this.#name} to serve or to end`, readyTimeoutMs, async () => {
      if (!this.isAlive) return { exitCode: await this.#exited };
      try {
        return JSON.parse(readFileSync(readyFile, "utf8")) as { endpoint: string };
      } catch {
        return undefined;
      }
    });
  }

  /** Starts it and insists that it serves. @returns "host:port". */
  async serve(config: object): Promise<string> {
    const outcome = await this.start(config);
    if ("endpoint" in outcome) return outcome.endpoint;
    throw new Error(`${this.#name} exits with ${outcome.exitCode}:\n${this.#log.slice(-4000)}`);
  }

  /** Ends it without warning, or with SIGTERM; settles when it has ended. */
  async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<number> {
    this.#child?.kill(signal);
    return this.#exited;
  }
}
