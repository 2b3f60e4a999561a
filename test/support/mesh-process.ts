// Runs `covenant up` as a user would, in a directory of its own.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Root of the checkout. */
export const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
export const cliEntry = path.join(repository, "apps/cli/src/main.ts");

const stopTimeoutMs = 120_000;
const pollMs = 200;

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Waits until `look` returns something; the deadline turns a hang into a failure with a name. */
export async function eventually<T>(
  what: string,
  deadlineMs: number,
  look: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const until = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > until) throw new Error(`Waited ${deadlineMs} ms in vain for ${what}`);
    await sleep(pollMs);
  }
}

/** A running (or ended) `covenant up`. */
export class MeshProcess {
  readonly directory: string;
  readonly reportFile: string;
  readonly #child: ChildProcess;
  #output = "";
  readonly exited: Promise<number>;

  constructor(
    flags: readonly string[],
    directory = mkdtempSync(path.join(tmpdir(), "covenant-mesh-")),
  ) {
    this.directory = directory;
    this.reportFile = path.join(directory, "report.json");
    this.#child = spawn(
      process.execPath,
      [
        cliEntry,
        "up",
        "--data",
        path.join(directory, "mesh"),
        "--report",
        this.reportFile,
        "--console-port",
        "0",
        "--api-port",
        "0",
        ...flags,
      ],
      {
        cwd: repository,
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, NODE_NO_WARNINGS: "1" },
      },
    );
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on("data", (piece: Buffer) => {
        this.#output += piece.toString();
      });
    }
    this.exited = new Promise((resolve) => {
      this.#child.once("exit", (code, signal) => resolve(signal ? 128 : (code ?? 1)));
    });
  }

  /** Everything it has written so far. */
  get output(): string {
    return this.#output;
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  get meshDirectory(): string {
    return path.join(this.directory, "mesh");
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Waits for the report; fails early, with the output, when the process ends without one. */
  report(deadlineMs: number): Promise<Record<string, never>> {
    return eventually("the report", deadlineMs, () => {
      try {
        return JSON.parse(readFileSync(this.reportFile, "utf8")) as Record<string, never>;
      } catch {
        if (this.hasEnded) {
          throw new Error(`covenant up ended without a report:\n${this.#output.slice(-4000)}`);
        }
        return undefined;
      }
    });
  }

  interrupt(): void {
    this.#child.kill("SIGINT");
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** Ctrl-C, wait for the end, remove everything unless `keep`. @returns the exit code. */
  async stop({ keep = false } = {}): Promise<number> {
    if (!this.hasEnded) this.interrupt();
    const overdue = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      this.kill();
      const what = `covenant up did not stop within ${stopTimeoutMs} ms`;
      overdue.reject(new Error(`${what}:\n${this.#output.slice(-2000)}`));
    }, stopTimeoutMs);
    const code = await Promise.race([this.exited, overdue.promise]).finally(() => {
      clearTimeout(timer);
    });
    if (!keep) await rm(this.directory, { recursive: true, force: true });
    return code;
  }
}
