// The stages of `npm test`, cheapest first; runs on the pinned Node.
import { spawnSync } from "node:child_process";
import { globSync, readdirSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { pinnedNode, root } from "./setup.mjs";

const bin = (name) => path.join(root, "node_modules", ".bin", name);
const environment = {
  ...process.env,
  PATH: `${path.dirname(pinnedNode)}${path.delimiter}${process.env.PATH}`,
  NODE_NO_WARNINGS: "1",
};

function run(command, args) {
  return spawnSync(command, args, { cwd: root, stdio: "inherit", env: environment }).status === 0;
}

function nodeTests(patterns, { concurrency, timeoutMs }) {
  const files = globSync(patterns, { cwd: root, exclude: (name) => name === "node_modules" });
  if (files.length === 0) {
    process.stderr.write(`No test file matches ${patterns.join(", ")}.\n`);
    return false;
  }
  return run(pinnedNode, [
    "--test",
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${timeoutMs}`,
    ...files.sort(),
  ]);
}

const workspaces = ["packages", "services", "apps", "kernels/node"];
/** Folders of test/ that are no kind of test. */
const notKinds = ["bench", "support", "vectors"];
const kinds = readdirSync(path.join(root, "test"), { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && !notKinds.includes(entry.name))
  .map((entry) => entry.name);

/** Each stage: a name, what it proves, and the check. */
const stages = [
  ["lint", () => run(bin("biome"), ["check", "."])],
  ["tidy", () => run(pinnedNode, ["scripts/tidy.ts"])],
  ["proto", () => run(bin("buf"), ["lint"]) && run(bin("buf"), ["format", "-d", "--exit-code"])],
  ["generated", () => run(pinnedNode, ["scripts/check-generated.ts"])],
  [
    "types",
    () => run(bin("tsc"), ["-p", "tsconfig.json"]) && run(bin("tsc"), ["-p", "apps/console"]),
  ],
  [
    "kernels",
    () =>
      run(pinnedNode, ["scripts/build-kernels.mjs", "--tests"]) &&
      run(pinnedNode, ["scripts/build-kernels.mjs", "--tests"]) &&
      run("ctest", ["--test-dir", "kernels/build", "--output-on-failure", "-j", "2"]),
  ],
  ["arm64", () => run(pinnedNode, ["scripts/arm64-kernels.mjs"])],
  [
    "unit",
    () =>
      nodeTests(
        [...workspaces.map((folder) => `${folder}/**/src/**/*.test.ts`), "scripts/**/*.test.ts"],
        {
          concurrency: 2,
          timeoutMs: 600_000,
        },
      ),
  ],
  ...kinds.map((kind) => [
    kind,
    () => nodeTests([`test/${kind}/**/*.test.ts`], { concurrency: 1, timeoutMs: 1_200_000 }),
  ]),
];

const only = process.argv.includes("--only")
  ? process.argv[process.argv.indexOf("--only") + 1]?.split(",")
  : undefined;
const unknown = only?.filter((name) => !stages.some(([stage]) => stage === name)) ?? [];
if (unknown.length > 0) {
  process.stderr.write(
    `Unknown stage ${unknown.join(", ")}; there are ${stages.map(([name]) => name).join(", ")}.\n`,
  );
  process.exit(2);
}

const failed = [];
const passed = [];
for (const [name, check] of stages) {
  if (only && !only.includes(name)) continue;
  const startedAt = Date.now();
  process.stdout.write(`\n── ${name}\n`);
  const ok = check();
  (ok ? passed : failed).push(name);
  process.stdout.write(
    `── ${name}: ${ok ? "ok" : "FAILED"} after ${Math.round((Date.now() - startedAt) / 1000)} s\n`,
  );
}
if (failed.length > 0) process.stdout.write(`\nFailed stages: ${failed.join(", ")}\n`);
process.stdout.write(`\n${passed.length} passed, ${failed.length} failed\n`);
process.exit(failed.length === 0 ? 0 : 1);
