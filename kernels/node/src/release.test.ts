import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const script = fileURLToPath(new URL("../../../scripts/release-kernels.mjs", import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), "covenant-release-test-"));
const out = path.join(folder, "out");
const project = path.join(folder, "project");
const platform = `${process.platform}-${process.arch}`;

interface Packed {
  name: string;
  file: string;
  sha256: string;
  bytes: number;
  glibc?: string;
}
let packages: Packed[] = [];

/** npm as a script, so that it runs with a PATH that holds nothing. */
function npmScript(): string {
  const found = spawnSync("sh", ["-c", "command -v npm"], { encoding: "utf8" }).stdout.trim();
  assert.notEqual(found, "", "npm is not on PATH");
  return realpathSync(found);
}

/** What a machine without compiler, CMake and git has. */
const bare = { PATH: path.join(folder, "nothing"), HOME: folder };

before(() => {
  const packed = spawnSync(process.execPath, [script, "--out", out], { encoding: "utf8" });
  assert.equal(packed.status, 0, packed.stderr);
  packages = (
    JSON.parse(readFileSync(path.join(out, "release.json"), "utf8")) as { packages: Packed[] }
  ).packages;
  mkdirSync(project);
  writeFileSync(path.join(project, "package.json"), '{"name":"user","type":"module"}');
  const files = packages.map(({ file }) => path.join(out, file));
  const flags = ["--offline", "--no-audit", "--no-fund", "--cache", path.join(folder, "cache")];
  const installed = spawnSync(process.execPath, [npmScript(), "install", ...flags, ...files], {
    cwd: project,
    env: bare,
    encoding: "utf8",
  });
  assert.equal(installed.status, 0, installed.stderr);
});
after(() => rmSync(folder, { recursive: true }));

/** Runs a program in the project that has only the packages. */
function program(text: string, env: NodeJS.ProcessEnv = {}) {
  const run = spawnSync(process.execPath, ["--input-type=module", "-e", text], {
    cwd: project,
    env: { ...bare, ...env },
    encoding: "utf8",
  });
  return { ...run, output: run.stdout + run.stderr };
}

test("the sums are those of the files", () => {
  const sums = readFileSync(path.join(out, "SHA256SUMS"), "utf8");
  assert.deepEqual(
    packages.map(({ name }) => name),
    ["@covenant/kernels", `@covenant/kernels-${platform}`],
  );
  for (const { file, sha256, bytes } of packages) {
    const content = readFileSync(path.join(out, file));
    assert.equal(createHash("sha256").update(content).digest("hex"), sha256);
    assert.equal(content.length, bytes);
    assert.ok(sums.includes(`${sha256}  ${file}\n`));
  }
});

test("installed into an empty folder, the packages train a model without a compiler", () => {
  const { output, status } = program(`
    import { initialParameters, Model } from "@covenant/kernels";
    const shape = { vocabSize: 32, hiddenSize: 16, intermediateSize: 24, layerCount: 1, headCount: 2,
      kvHeadCount: 1, maxPositions: 16, ropeTheta: 10000, rmsNormEps: 1e-5, tieWordEmbeddings: true };
    const model = await Model.create(shape, { parameters: initialParameters(shape, 1n) });
    const tokens = Int32Array.from({ length: 16 }, (_, i) => i);
    const batch = { tokens, targets: tokens.map((token) => token + 1), sequences: 1, sequenceLength: 16 };
    const adamw = { learningRate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, gradientClip: 1 };
    const losses = [];
    for (let i = 0; i < 20; i++) losses.push((await model.trainStep(batch, adamw)).loss);
    model.close();
    process.stdout.write(losses[0] + " " + losses[19]);
  `);
  // In fp32 these digits are those of every machine and CPU path.
  assert.equal(output, "3.4763485938310623 1.2058837339282036");
  assert.equal(status, 0);
});

test("without the package of its platform, or with another version of it, it says what to install", () => {
  const manifest = path.join(
    project,
    "node_modules",
    `@covenant/kernels-${platform}`,
    "package.json",
  );
  const text = readFileSync(manifest, "utf8");
  const load = `import { machine } from "@covenant/kernels";
    try { machine(); } catch (error) { process.stdout.write(error.code + " " + error.message); }`;
  const expected = new RegExp(
    `^COV_KERNELS_NOT_BUILT The kernels are not built: install the package @covenant/kernels-${platform}, `,
  );
  try {
    writeFileSync(manifest, text.replace(/"version": "[^"]+"/, '"version": "0.0.1"'));
    assert.match(program(load).output, expected);
    rmSync(manifest);
    assert.match(program(load).output, expected);
  } finally {
    writeFileSync(manifest, text);
  }
});

test("unknown platforms and a missing folder are refused in a sentence", () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [script, ...args], { encoding: "utf8" });
  assert.match(
    run("--out", out, "--platform", "beos-x64").stderr,
    /^Unknown platform beos-x64; there are linux-x64, /,
  );
  assert.match(run().stderr, /^Say where the packages go: --out FOLDER\./);
  const other = process.platform === "darwin" ? "linux-x64" : "darwin-arm64";
  assert.match(run("--out", out, "--platform", other).stderr, /cannot be built on/);
});
