// Where a model computes. Where there is no GPU the emulated CUDA library computes, with the same code.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { initialParameters, type ModelShape } from "@covenant/kernels";
import { emulateDevices } from "@covenant/kernels/testing";
import { CovenantError } from "@covenant/runtime";
import { recordingLogger } from "@covenant/runtime/testing";
import { deviceSettings, devicesOf } from "./device-setting.ts";
import { type DeviceOptions, openModel } from "./open-model.ts";

const skip = emulateDevices(2) ?? false;

const shape: ModelShape = {
  vocabSize: 32,
  hiddenSize: 16,
  intermediateSize: 24,
  layerCount: 2,
  headCount: 2,
  kvHeadCount: 1,
  maxPositions: 32,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};
const parameters = initialParameters(shape, 3n);
const onCpu: DeviceOptions = { device: "cpu", deviceLayout: "data-parallel", threads: 1 };

const request = {
  prompt: Int32Array.of(1, 2, 3),
  maxNewTokens: 9,
  temperature: 1,
  topK: 0,
  topP: 1,
  stopTokens: [],
  samplingSeed: new Uint8Array(32).fill(4),
};

/** What a model that is opened so generates, and what the log says of it. */
async function generated(options: Partial<DeviceOptions>) {
  const { logger, lines } = recordingLogger();
  const model = await openModel(shape, { ...onCpu, ...options }, { logger, parameters });
  try {
    assert.deepEqual(await model.read("parameters"), parameters);
    return { results: await model.generate([request, request]), lines };
  } finally {
    model.close();
  }
}

test("a model generates the same on every device", { skip }, async () => {
  const expected = await generated({});
  assert.deepEqual(expected.lines, []);
  for (const device of ["cuda", "auto", "cuda:1", "cuda:1,0"]) {
    const { results, lines } = await generated({ device });
    assert.deepEqual(results, expected.results, device);
    assert.equal(lines.length, 1);
    assert.match(String(lines[0]?.msg), /^computing on CUDA: /);
  }
});

test("a device that is not there is an error that says what is, and what to do", {
  skip,
}, async () => {
  await assert.rejects(generated({ device: "cuda:0,7" }), (error) => {
    assert.ok(error instanceof CovenantError && error.code === "COV_DEVICE_UNAVAILABLE");
    assert.match(error.message, /^no CUDA device 7: there are 0 \(.+\), 1 \(.+\)$/);
    assert.match(error.remedy, /device auto or cpu/);
    return true;
  });
});

/** What opening a model does in a process without the CUDA library. */
function withoutLibrary(device: string) {
  const at = (file: string) => JSON.stringify(new URL(file, import.meta.url).href);
  const program = `
    import { openModel } from ${at("./open-model.ts")};
    const lines = [];
    const logger = { info: (...line) => lines.push(line), warn: (...line) => lines.push(line) };
    const options = ${JSON.stringify({ ...onCpu, device })};
    const { Model } = await import("@covenant/kernels");
    const outcome = await openModel(${JSON.stringify(shape)}, options, { logger }).then(
      (model) => ({ onCpu: model instanceof Model }),
      ({ code, message }) => ({ code, message }),
    );
    process.stdout.write(JSON.stringify({ ...outcome, lines }));`;
  const run = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: import.meta.dirname,
    encoding: "utf8",
    env: { ...process.env, COVENANT_CUDA_LIBRARY: "/nowhere/libcovenant_cuda.so" },
    timeout: 120_000,
  });
  assert.equal(run.status, 0, run.stderr);
  return JSON.parse(run.stdout);
}

test("without CUDA, auto computes on the CPU and says so once", () => {
  const { onCpu, lines } = withoutLibrary("auto");
  assert.equal(onCpu, true);
  assert.equal(lines.length, 1);
  assert.match(
    lines[0][1],
    /^computing on the CPU: no CUDA device 0: CUDA is not available: there is/,
  );
});

test("without CUDA, cuda is an error, and cpu is as ever", () => {
  const { code, message } = withoutLibrary("cuda");
  assert.equal(code, "COV_DEVICE_UNAVAILABLE");
  assert.match(message, /there is no \/nowhere\/libcovenant_cuda\.so/);
  assert.deepEqual(withoutLibrary("cpu"), { onCpu: true, lines: [] });
});

test("the setting takes devices and nothing else", () => {
  for (const [setting, indices] of [
    ["cpu", []],
    ["auto", [0]],
    ["cuda", [0]],
    ["cuda:2", [2]],
    ["cuda:3,1", [3, 1]],
  ] as const) {
    assert.deepEqual(devicesOf(setting), indices);
  }
  for (const bad of ["", "gpu", "cuda:", "cuda:0,", "cuda:-1", "cuda:a", "cuda 0", "CPU"]) {
    assert.equal(devicesOf(bad), undefined, bad);
    const { error } = deviceSettings.device.safeParse(bad);
    assert.match(error!.issues[0]!.message, /expected "cpu", "auto", "cuda" or indices/);
  }
});
