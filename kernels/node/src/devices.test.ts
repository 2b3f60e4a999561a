import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { devices } from "./devices.ts";
import type { KernelError } from "./errors.ts";
import { tinyShape } from "./test-support.ts";
import { emulateDevices } from "./testing.ts";

const index = new URL("./index.ts", import.meta.url).href;

/** What a program of its own prints as JSON, because the library is looked for once in a process. */
function run<T>(program: string, environment: Record<string, string>): T {
  const source = `import { DeviceModel, devices, initialParameters } from ${JSON.stringify(index)};
const print = (value) => process.stdout.write(JSON.stringify(value));
${program}`;
  const result = spawnSync(process.execPath, ["--input-type=module", "--eval", source], {
    encoding: "utf8",
    env: { ...process.env, ...environment },
    timeout: 120_000,
  });
  assert.equal(result.status, 0, result.stderr);
  return JSON.parse(result.stdout);
}

const reportWith = (library: string) =>
  run<ReturnType<typeof devices>>("print(devices());", { COVENANT_CUDA_LIBRARY: library });

test("devices are reported", { skip: emulateDevices(2) ?? false }, () => {
  const found = devices();
  assert.ok(found.devices.length >= 2);
  assert.match(found.report, /^\d+ CUDA devices: ./);
  for (const [at, device] of found.devices.entries()) {
    assert.equal(device.index, at);
    assert.ok(device.memoryBytes >= device.freeBytes && device.freeBytes >= 0);
    assert.ok(device.name.length > 0 && device.multiprocessors > 0);
    assert.match(device.driverVersion, /^\d+\.\d+$/);
  }
});

test("where there are none, the report says why", () => {
  const found = reportWith("");
  if (found.devices.length === 0) assert.match(found.report, /^CUDA is not available: ./);
  else assert.match(found.report, /^\d+ CUDA device/);
});

test("a missing or foreign library is a sentence, not a crash", () => {
  const missing = reportWith("/nowhere/libcovenant_cuda.so");
  assert.deepEqual(missing.devices, []);
  assert.match(missing.report, /there is no \/nowhere\/libcovenant_cuda\.so/);
  const foreign = reportWith(process.execPath);
  assert.deepEqual(foreign.devices, []);
  assert.match(foreign.report, /does not load|belongs to another build/);
});

test("a model for a device rejects with that sentence where there is no library", () => {
  const program = `const shape = ${JSON.stringify(tinyShape)};
try { await DeviceModel.create(shape, { parameters: initialParameters(shape, 1n) }); }
catch (error) { print({ name: error.name, code: error.code, message: error.message }); }`;
  const error = run<KernelError>(program, {
    COVENANT_CUDA_LIBRARY: "/nowhere/libcovenant_cuda.so",
  });
  assert.deepEqual([error.name, error.code], ["KernelError", "COV_KERNELS_UNSUPPORTED"]);
  assert.match(
    error.message,
    /^CUDA is not available: there is no \/nowhere\/libcovenant_cuda\.so/,
  );
});
