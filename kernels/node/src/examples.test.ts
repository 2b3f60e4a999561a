import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { emulateDevices, emulatedEnvironment } from "./testing.ts";

const folder = fileURLToPath(new URL("../../examples", import.meta.url));

function learns(file: string, environment: Record<string, string>) {
  const run = spawnSync(process.execPath, [`${folder}/${file}`], {
    encoding: "utf8",
    env: { ...process.env, ...environment },
    timeout: 120_000,
  });
  assert.equal(run.stderr, "");
  assert.equal(run.stdout, "learned\n");
  assert.equal(run.status, 0);
}

for (const file of readdirSync(folder).filter((name) => name.endsWith(".ts"))) {
  test(`the example ${file} runs`, () => learns(file, { COVENANT_CUDA_LIBRARY: "" }));
}

test("the example of devices runs on an emulated one", { skip: emulateDevices(1) ?? false }, () =>
  learns("devices.ts", emulatedEnvironment(1)),
);
