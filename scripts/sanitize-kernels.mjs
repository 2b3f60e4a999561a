// `npm run sanitize:kernels`: builds the C++ tests with the sanitizers and runs them, with every compiler that is there:
// address and undefined behaviour in one build, data races in another (the tests that start threads). The tests take smaller
// shapes and fewer rounds there, through the same branches (kernels/tests/check.h). Prints a table in Markdown.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { buildKernels, kernels } from "./cmake.ts";
import { fail, parseOptions, positive, usageStatus } from "./options.ts";
import { root } from "./root.ts";

const kinds = ["address,undefined", "thread"];

const help = `Usage: npm run sanitize:kernels -- [--compiler NAME]… [--kind address,undefined|thread]… [--jobs N] [--tests REGEX]
  --compiler NAME  g++, clang++-14, … (default: every one of g++, clang++ and clang++-14 that there is)
  --kind KIND      one of the two builds (default: both)
  --jobs N         compile and test N at once
  --tests REGEX    these tests only
`;

/** What the compiler calls itself, so that two names of one compiler count once; undefined when it is not there. */
function identity(compiler) {
  const { status, stdout } = spawnSync(compiler, ["--version"], { encoding: "utf8" });
  return status === 0 ? stdout.split("\n")[0] : undefined;
}

const seconds = (milliseconds) => Math.round(milliseconds / 1000);

function compilersOf(wanted) {
  const found = new Map();
  for (const name of wanted ?? ["g++", "clang++", "clang++-14"]) {
    const is = identity(name);
    if (is !== undefined && !found.has(is)) found.set(is, name);
    if (is === undefined && wanted)
      fail(`There is no compiler ${name} on this machine.`, usageStatus);
  }
  if (found.size === 0)
    fail("There is no C++ compiler: on Debian or Ubuntu run apt-get install g++.");
  return [...found.values()];
}

function build(compiler, kind, jobs) {
  const folder = path.join(kernels, "build", `sanitize-${compiler}-${kind.replace(",", "-")}`);
  buildKernels({
    folder,
    definitions: {
      CMAKE_CXX_COMPILER: compiler,
      COVENANT_SANITIZE: kind,
      COVENANT_BUILD_NODE: "OFF",
    },
    jobs,
    failure: `The kernels could not be built by ${compiler} with ${kind}; see above.`,
  });
  return folder;
}

/** Runs the tests of a build; what came of them, and how many there were. */
function test(folder, jobs, tests) {
  const report = path.join(folder, "tests.xml");
  const args = [
    ...["--test-dir", folder, "--output-on-failure", "-j", String(jobs)],
    ...["--output-junit", report, "--no-tests=error"],
    ...(tests ? ["-R", tests] : []),
  ];
  rmSync(report, { force: true });
  // Anything suspicious ends the test that did it.
  const env = {
    ...process.env,
    ASAN_OPTIONS: "detect_leaks=1:allocator_may_return_null=1",
    UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
    TSAN_OPTIONS: "halt_on_error=1:second_deadlock_stack=1",
  };
  const ok = spawnSync("ctest", args, { cwd: root, env, stdio: "inherit" }).status === 0;
  const count = existsSync(report) ? /\stests="(\d+)"/.exec(readFileSync(report, "utf8")) : null;
  return { ok, count: Number(count?.[1] ?? 0) };
}

function main() {
  const text = { type: "string" };
  const options = parseOptions(
    {
      compiler: { ...text, multiple: true },
      kind: { ...text, multiple: true },
      jobs: { ...text, default: String(os.availableParallelism()) },
      tests: text,
    },
    help,
  );
  const jobs = positive("jobs", options.jobs);
  const chosen = options.kind ?? kinds;
  const unknown = chosen.find((kind) => !kinds.includes(kind));
  if (unknown !== undefined)
    fail(`Unknown kind ${unknown}; there are ${kinds.join(" and ")}.`, usageStatus);
  const failed = [];
  const rows = ["| compiler | sanitizers | build s | tests s | tests | result |"];
  rows.push("| --- | --- | --- | --- | --- | --- |");
  for (const compiler of compilersOf(options.compiler)) {
    for (const kind of chosen) {
      const startedAt = Date.now();
      const folder = build(compiler, kind, jobs);
      const builtAt = Date.now();
      const { ok, count } = test(folder, jobs, options.tests);
      const cells = [compiler, kind, seconds(builtAt - startedAt), seconds(Date.now() - builtAt)];
      rows.push(`| ${[...cells, count, ok ? "clean" : "FAULTY"].join(" | ")} |`);
      if (!ok) failed.push(`${compiler} with ${kind}`);
    }
  }
  process.stdout.write(`${rows.join("\n")}\n`);
  if (failed.length > 0) fail(`Not clean: ${failed.join("; ")}.`);
}

main();
