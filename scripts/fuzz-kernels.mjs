// `npm run fuzz:kernels -- --seconds N`: builds the libFuzzer targets (clang, address and undefined sanitizers), runs each
// for N seconds on top of the kept corpus, and puts what is new into kernels/fuzz/corpus/TARGET, minimised. Prints a
// table in Markdown. Exits with 1 when a target finds a fault; the input that shows it stays in kernels/build/fuzz.
import { spawnSync } from "node:child_process";
import {
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const source = path.join(root, "kernels");
const build = path.join(source, "build", "fuzz");

const help = `Usage: npm run fuzz:kernels -- [--seconds N] [--target NAME]… [--jobs N] [--keep-corpus]
  --seconds N      how long each target runs (default: 60)
  --target NAME    these targets only (kernels/fuzz/NAME.cc)
  --jobs N         compile N files at once
  --keep-corpus    leave kernels/fuzz/corpus as it is
`;
/** Longer inputs teach little about formats whose structures repeat, and do not belong into a repository. */
const inputBytesMax = 4096;

function fail(sentence) {
  process.stderr.write(`${sentence}\n`);
  process.exit(1);
}

function buildTargets(names, jobs) {
  const compiler = ["clang++", "clang++-14"].find(
    (name) => spawnSync(name, ["--version"]).status === 0,
  );
  if (!compiler) fail("Fuzzing needs clang: on Debian or Ubuntu run apt-get install clang.");
  const cache = path.join(build, "CMakeCache.txt");
  const home = `CMAKE_HOME_DIRECTORY:INTERNAL=${source}\n`;
  if (existsSync(cache) && !readFileSync(cache, "utf8").includes(home)) {
    rmSync(cache);
  }
  const ninja = spawnSync("ninja", ["--version"]).status === 0;
  const options = [
    ...[`-DCMAKE_CXX_COMPILER=${compiler}`, "-DCOVENANT_BUILD_FUZZERS=ON"],
    ...["-DCOVENANT_SANITIZE=address,undefined", "-DCOVENANT_BUILD_NODE=OFF"],
    ...["-DCOVENANT_BUILD_TESTS=OFF", "-DCOVENANT_BUILD_CUDA=OFF"],
    ...(ninja ? ["-G", "Ninja"] : []),
  ];
  const targets = names.map((name) => `fuzz_${name}`);
  const steps = [
    ["-S", source, "-B", build, ...options],
    ["--build", build, "--parallel", String(jobs), "--target", ...targets],
  ];
  for (const args of steps) {
    const step = spawnSync("cmake", args, { maxBuffer: 256 << 20 });
    if (step.status === 0) continue;
    process.stderr.write(`${step.stdout}${step.stderr}`);
    fail("The fuzz targets could not be built; see above.");
  }
}

const environment = {
  ...process.env,
  ASAN_OPTIONS: "detect_leaks=1:allocator_may_return_null=1",
  UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
};

/** Runs a target for `seconds`; returns what libFuzzer says of it. */
function fuzz(name, seconds, kept) {
  const work = path.join(build, "corpus", name);
  const artifacts = path.join(build, "faults", name);
  mkdirSync(work, { recursive: true });
  mkdirSync(artifacts, { recursive: true });
  const run = spawnSync(
    path.join(build, `fuzz_${name}`),
    [
      ...[`-max_total_time=${seconds}`, `-max_len=${inputBytesMax}`, "-print_final_stats=1"],
      // An input takes less than a millisecond; but a shared machine may halt the process for a while.
      ...["-timeout=300", "-report_slow_units=300", "-rss_limit_mb=2048"],
      `-artifact_prefix=${artifacts}${path.sep}`,
      ...[work, kept],
    ],
    { encoding: "utf8", env: environment, maxBuffer: 256 << 20 },
  );
  const last = [...run.stderr.matchAll(/cov: (\d+) ft: (\d+) corp: (\d+)\//g)].at(-1);
  const executions = /stat::number_of_executed_units: (\d+)/.exec(run.stderr);
  if (run.status !== 0) process.stderr.write(`${run.stderr.slice(-8000)}\n`);
  return {
    name,
    seconds,
    executions: Number(executions?.[1] ?? 0),
    edges: Number(last?.[1] ?? 0),
    features: Number(last?.[2] ?? 0),
    ok: run.status === 0,
    work,
  };
}

/** The smallest set of inputs that covers what old and new ones cover together, in place of the old. */
function minimise(name, work, kept) {
  const fresh = path.join(build, "minimised", name);
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  const args = ["-merge=1", `-max_len=${inputBytesMax}`, fresh, kept, work];
  const run = spawnSync(path.join(build, `fuzz_${name}`), args, {
    encoding: "utf8",
    env: environment,
    maxBuffer: 256 << 20,
  });
  if (run.status !== 0) fail(`The corpus of ${name} could not be minimised:\n${run.stderr}`);
  rmSync(kept, { recursive: true, force: true });
  mkdirSync(path.dirname(kept), { recursive: true });
  renameSync(fresh, kept);
}

function sizeOf(folder) {
  const files = readdirSync(folder).map((file) => statSync(path.join(folder, file)).size);
  return { files: files.length, bytes: files.reduce((sum, bytes) => sum + bytes, 0) };
}

function main() {
  const { values: options } = parseArgs({
    options: {
      seconds: { type: "string", default: "60" },
      target: { type: "string", multiple: true },
      jobs: { type: "string", default: "2" },
      "keep-corpus": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (options.help) {
    process.stdout.write(help);
    return;
  }
  const seconds = Number(options.seconds);
  if (!Number.isInteger(seconds) || seconds < 1) fail("--seconds takes a whole number.");
  const all = globSync("fuzz/*.cc", { cwd: source }).map((file) => path.basename(file, ".cc"));
  const names = (options.target ?? all).sort();
  const unknown = names.find((name) => !all.includes(name));
  if (unknown) fail(`Unknown target ${unknown}; there are ${all.sort().join(", ")}.`);
  buildTargets(names, options.jobs);
  const header = ["target", "seconds", "executions", "edges", "features", "corpus", "result"];
  process.stdout.write(`| ${header.join(" | ")} |\n|${header.map(() => " --- |").join("")}\n`);
  let sound = true;
  for (const name of names) {
    const kept = path.join(source, "fuzz", "corpus", name);
    mkdirSync(kept, { recursive: true });
    const result = fuzz(name, seconds, kept);
    if (result.ok && !options["keep-corpus"]) minimise(name, result.work, kept);
    const { files, bytes } = sizeOf(kept);
    sound &&= result.ok;
    const cells = [
      name,
      seconds,
      result.executions,
      result.edges,
      result.features,
      `${files} inputs, ${bytes} bytes`,
      result.ok ? "no fault" : "FAULT",
    ];
    process.stdout.write(`| ${cells.join(" | ")} |\n`);
  }
  if (!sound) fail("A target found a fault; its input lies in kernels/build/fuzz/faults.");
}

main();
