import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { devices } from "./devices.ts";

const index = new URL("./index.ts", import.meta.url).href;
const program = `import { devices } from ${JSON.stringify(index)};
process.stdout.write(JSON.stringify(devices()));`;

/** What a process of its own reports, because the library is looked for once in a process. */
function reportWith(library: string): ReturnType<typeof devices> {
  const result = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    encoding: "utf8",
    env: { ...process.env, COVENANT_CUDA_LIBRARY: library },
  });
  assert.equal(result.status, 0, result.stderr);
  return JSON.parse(result.stdout);
}

test("devices are reported, or the reason why there are none", () => {
  const found = devices();
  if (found.devices.length === 0) assert.match(found.report, /^CUDA is not available: ./);
  else assert.match(found.report, /^\d+ CUDA device/);
  for (const [at, device] of found.devices.entries()) {
    assert.equal(device.index, at);
    assert.ok(device.memoryBytes >= device.freeBytes && device.freeBytes >= 0);
    assert.ok(device.name.length > 0 && device.multiprocessors > 0);
  }
});

test("a missing or foreign library is a sentence, not a crash", () => {
  const missing = reportWith("/nowhere/libcovenant_cuda.so");
  assert.deepEqual(missing.devices, []);
  assert.match(missing.report, /there is no \/nowhere\/libcovenant_cuda\.so/);
  const foreign = reportWith(process.execPath);
  assert.deepEqual(foreign.devices, []);
  assert.match(foreign.report, /does not load|belongs to another build/);
});
