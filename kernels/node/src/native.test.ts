import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { prebuiltPackages } from "./addon.ts";
import { kernelErrorCodes } from "./errors.ts";
import { type NativeBinding, type NativeModel, native } from "./native.ts";

// The compiler checks these lists against the declared types; the tests check them against the addon.
const exported: Record<keyof NativeBinding, true> = {
  Generator: true,
  Model: true,
  activationSize: true,
  aggregate: true,
  applyDelta: true,
  applyMerged: true,
  applyUpdate: true,
  compress: true,
  createDeviceModel: true,
  createModel: true,
  decode: true,
  decodeActivations: true,
  devices: true,
  encodeActivations: true,
  encodeDelta: true,
  packUpdate: true,
  unpackUpdate: true,
  initialParameters: true,
  machine: true,
  projectionBasis: true,
  projectionDecode: true,
  projectionDecodeBackward: true,
  projectionEncode: true,
  projectionEncodeBackward: true,
  projectionStep: true,
  sha256: true,
  sparseSize: true,
  stateRoot: true,
  tensorTable: true,
  tensorTableRoot: true,
  uniformAt: true,
};
const methods: Record<keyof NativeModel, true> = {
  backward: true,
  close: true,
  createAdapter: true,
  createGenerator: true,
  forward: true,
  generate: true,
  length: true,
  memory: true,
  merge: true,
  optimizerStep: true,
  read: true,
  release: true,
  replay: true,
  setStepCount: true,
  stepCount: true,
  trainStep: true,
  unmerge: true,
  view: true,
  write: true,
};

test("the addon exports exactly what the binding type declares", () => {
  assert.deepEqual(Object.keys(native()).sort(), Object.keys(exported).sort());
  const own = Object.getOwnPropertyNames(native().Model.prototype);
  assert.deepEqual(own.filter((name) => name !== "constructor").sort(), Object.keys(methods));
  for (const [name, value] of Object.entries(native())) {
    assert.equal(typeof value, "function", name);
  }
});

test("a model cannot be made around Model.create", () => {
  const Direct = native().Model as unknown as new () => NativeModel;
  assert.throws(() => new Direct(), { code: "COV_KERNELS_INVALID_ARGUMENT" });
});

test("the codes are unique", () => {
  assert.equal(new Set(kernelErrorCodes).size, kernelErrorCodes.length);
});

function loadWith(addon: string): { stdout: string; status: number | null } {
  const script = `
    import { tensorTable } from ${JSON.stringify(fileURLToPath(new URL("./index.ts", import.meta.url)))};
    try { tensorTable({}); } catch (error) { process.stdout.write(error.name + "|" + error.code + "|" + error.message); }
  `;
  return spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    env: { ...process.env, COVENANT_KERNELS_ADDON: addon },
    encoding: "utf8",
    timeout: 60_000,
  });
}

test("a missing addon says what to run", () => {
  const { stdout } = loadWith("/nowhere/covenant_kernels.node");
  assert.match(
    stdout,
    /^KernelError\|COV_KERNELS_NOT_BUILT\|The kernels are not built: install the package @covenant\/kernels-[a-z0-9-]+, or run "npm run build:kernels" in a clone of the repository\.$/,
  );
});

test("an addon that does not load says why and what to run", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "covenant-kernels-"));
  try {
    const file = path.join(folder, "broken.node");
    writeFileSync(file, "not an addon");
    const pattern =
      /^KernelError\|COV_KERNELS_NOT_BUILT\|The kernels do not load \(.*broken\.node.*\): install /s;
    assert.match(loadWith(file).stdout, pattern);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a file that is no addon by its name is not run", () => {
  assert.match(loadWith("/nowhere/program.js").stdout, /its name does not end in \.node/);
});

test("the CUDA package is preferred where there is one", () => {
  assert.deepEqual(prebuiltPackages("linux", "x64"), [
    "@covenant/kernels-linux-x64-cuda",
    "@covenant/kernels-linux-x64",
  ]);
  assert.deepEqual(prebuiltPackages("darwin", "arm64"), ["@covenant/kernels-darwin-arm64"]);
});
