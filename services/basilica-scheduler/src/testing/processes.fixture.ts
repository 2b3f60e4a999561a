import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readProcess } from "../agent/process-info.ts";

/** Limits of waiting in tests: failures of the test, never part of what it asserts. */
const startMsMax = 60_000;

/** A process of the mesh under test. */
export interface TestProcess {
  readonly child: ChildProcess;
  /** "host:port", or empty when it serves nothing. */
  readonly endpoint: string;
  /** Everything it wrote to standard error so far. */
  output(): string;
  /** Ends it by the signal and waits. */
  kill(signal: NodeJS.Signals): Promise<void>;
}

/** A test that fails in the middle leaves nothing running. */
const children = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

/** Starts a service and waits until it is ready; fails with its output when it ends before. */
export async function startProcess(options: {
  main: string;
  name: string;
  directory: string;
  config: object;
}): Promise<TestProcess> {
  const { main, name, directory, config } = options;
  const configFile = join(directory, `${name}.json`);
  const readyFile = join(directory, `${name}.ready.json`);
  writeFileSync(configFile, JSON.stringify(config));
  rmSync(readyFile, { force: true });
  const env = { ...process.env, COVENANT_READY_FILE: readyFile, COVENANT_LOG_LEVEL: "debug" };
  const stdio = ["ignore", "inherit", "pipe"] as const;
  const child = spawn(process.execPath, [main, "--config", configFile], { env, stdio: [...stdio] });
  children.add(child);
  child.once("exit", () => children.delete(child));
  // Whoever started it waits for it; an abandoned one must not keep the test's process alive.
  child.unref();
  let output = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const untilMs = Date.now() + startMsMax;
  while (!existsSync(readyFile)) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > untilMs) {
      child.kill("SIGKILL");
      throw new Error(`${name} did not start:\n${output}`);
    }
    await sleep(20);
  }
  const { endpoint } = JSON.parse(readFileSync(readyFile, "utf8")) as { endpoint: string };
  return {
    child,
    endpoint,
    output: () => output,
    async kill(signal) {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, "exit");
      child.kill(signal);
      await exited;
    },
  };
}

/** Waits until the condition gives something; fails with the description when it never does. */
export async function eventually<T>(
  description: string,
  condition: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 60_000,
): Promise<T> {
  const untilMs = Date.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > untilMs) throw new Error(`never happened: ${description}`);
    await sleep(30);
  }
}

/** Ends every workload whose process group is still there below an agent's data directory. */
export function endStrays(dataDirectory: string): void {
  for (const path of globSync(join(dataDirectory, "tasks/*/*/pids"))) {
    const group = Number(readFileSync(path, "utf8").split(" ")[0]);
    if (group > 1 && existsSync(`/proc/${group}`)) process.kill(-group, "SIGKILL");
  }
}

/** True while a process with this id lives; one that waits to be collected does not. */
export function isRunning(pid: number): boolean {
  const process = readProcess(pid);
  return process !== undefined && !process.isZombie;
}
