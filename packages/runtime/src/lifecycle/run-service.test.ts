import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { LOCK_FILE } from "../files/lock.ts";
import { temporaryDirectory } from "../testing.ts";

const PROBE = fileURLToPath(new URL("probe.testing.ts", import.meta.url));

/** Runs the probe; `saw` waits for a line of its log, `exited` for its end. */
function run(t: TestContext, args: string[], env: Record<string, string> = {}) {
  const options = { env: { ...process.env, NODE_OPTIONS: "", ...env }, stdio: "pipe" as const };
  const child: ChildProcess = spawn(process.execPath, [PROBE, ...args], options);
  t.after(() => child.kill("SIGKILL"));
  let log = "";
  let output = "";
  child.stdout!.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr!.on("data", (chunk) => {
    log += chunk;
  });
  const ended = once(child, "close").then(([code]) => ({ code: code as number, log, output }));
  const saw = async (text: string) => {
    while (!log.includes(text)) {
      await Promise.race([once(child.stderr!, "data"), ended]);
      if (child.exitCode !== null) break;
    }
    assert.ok(log.includes(text), `"${text}" in:\n${log}`);
  };
  return { child, ended, saw };
}

test("SIGTERM drains and exits with 0; the ready file and the lock come and go in order", async (t) => {
  const directory = await temporaryDirectory(t);
  const ready = join(directory, "ready.json");
  const dataDirectory = join(directory, "data");
  const args = ["--data-directory", dataDirectory];
  const { child, ended, saw } = run(t, args, { COVENANT_READY_FILE: ready });
  await saw("Running");
  assert.deepEqual(JSON.parse(await readFile(ready, "utf8")), { endpoint: "127.0.0.1:1" });
  assert.deepEqual(await readdir(dataDirectory), [LOCK_FILE]);
  const second = await run(t, args).ended;
  assert.equal(second.code, 78);
  assert.match(second.log, /COV_DATA_DIRECTORY_IN_USE/);
  child.kill("SIGTERM");
  const { code, log } = await ended;
  assert.equal(code, 0);
  assert.ok(log.indexOf("Signal seen") < log.indexOf("Drained"));
  assert.deepEqual(await readdir(dataDirectory), []);
});

test("a killed process's directory can be used again", async (t) => {
  const args = ["--data-directory", await temporaryDirectory(t)];
  const first = run(t, args);
  await first.saw("Running");
  first.child.kill("SIGKILL");
  await first.ended;
  const second = run(t, [...args, "--behaviour", "finish"]);
  assert.equal((await second.ended).code, 0);
});

test("a second signal exits at once, and a drain that hangs is cut", async (t) => {
  const impatient = run(t, ["--behaviour", "hang"]);
  await impatient.saw("Running");
  impatient.child.kill("SIGINT");
  await impatient.saw("Signal seen");
  impatient.child.kill("SIGINT");
  assert.equal((await impatient.ended).code, 130);
  const hanging = run(t, ["--behaviour", "hang"], { COVENANT_DRAIN_TIMEOUT_MS: "50" });
  await hanging.saw("Running");
  hanging.child.kill("SIGTERM");
  const { code, log } = await hanging.ended;
  assert.equal(code, 130);
  assert.match(log, /The drain took too long/);
});

test("exit codes say what went wrong", async (t) => {
  const cases: [string, number, RegExp][] = [
    ["finish", 0, /Drained/],
    ["throw", 70, /a fault/],
    ["refuse", 1, /COV_DISK_FULL.*No space left/],
    ["reject", 70, /Unhandled rejection/],
    ["crash", 70, /Uncaught exception.*|out of the blue/],
    ["nonsense", 78, /COV_CONFIG_INVALID.*one of wait/],
  ];
  for (const [behaviour, code, pattern] of cases) {
    const { ended } = run(t, ["--behaviour", behaviour]);
    const result = await ended;
    assert.equal(result.code, code, result.log);
    assert.match(result.log, pattern);
    for (const line of result.log.trim().split("\n")) JSON.parse(line);
  }
});

test("--help and --print-config write to standard output and exit with 0", async (t) => {
  const help = await run(t, ["--help"]).ended;
  assert.deepEqual([help.code, help.log], [0, ""]);
  assert.match(help.output, /--behaviour\n +What the probe does once it runs/);
  const printed = await run(t, ["--behaviour=finish", "--print-config"]).ended;
  assert.deepEqual(JSON.parse(printed.output), { behaviour: "finish" });
});
