// `npm run fuzz:kernels -- --seconds N`: builds the libFuzzer targets (clang, address and undefined sanitizers), runs each
// for N seconds of processor time on top of the kept corpus, and puts what is new into kernels/fuzz/corpus/TARGET,
// minimised. Prints a table in Markdown. Exits with 1 when a target finds a fault; the input that shows it stays in
// kernels/build/fuzz.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
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
import { buildKernels, has, kernels } from "./cmake.ts";
import { fail, parseOptions, positive, usageStatus } from "./options.ts";

const build = path.join(kernels, "build", "fuzz");

const help = `Usage: npm run fuzz:kernels -- [--seconds N] [--target NAME]… [--jobs N] [--keep-corpus]
  --seconds N      processor time that each target gets (default: 60), however long that takes on a busy machine
  --target NAME    these targets only (kernels/fuzz/NAME.cc), in this order
  --jobs N         compile N files, then fuzz N targets at once (default: 2)
  --keep-corpus    leave kernels/fuzz/corpus as it is
`;
const ticksPerSecond =
  Number(spawnSync("getconf", ["CLK_TCK"], { encoding: "utf8" }).stdout) || 100;
/** Of this many seconds by the clock a target must get one of the processor, or it is not waited for. */
const slowdownMax = 50;
/** Longer inputs teach little about formats whose structures repeat, and do not belong into a repository. */
const inputBytesMax = 4096;

function buildTargets(names, jobs) {
  const compiler = ["clang++", "clang++-14"].find(has);
  if (!compiler) fail("Fuzzing needs clang: on Debian or Ubuntu run apt-get install clang.");
  buildKernels({
    folder: build,
    definitions: {
      CMAKE_CXX_COMPILER: compiler,
      COVENANT_SANITIZE: "address,undefined",
      COVENANT_BUILD_FUZZERS: "ON",
      COVENANT_BUILD_NODE: "OFF",
      COVENANT_BUILD_TESTS: "OFF",
      COVENANT_BUILD_CUDA: "OFF",
    },
    targets: names.map((name) => `fuzz_${name}`),
    jobs,
    failure: "The fuzz targets could not be built; see above.",
  });
}

const environment = {
  ...process.env,
  ASAN_OPTIONS: "detect_leaks=1:allocator_may_return_null=1",
  UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
};

/** Processor seconds that a process has used, user and system; undefined where there is no /proc, or it has gone. */
function processorSeconds(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name in parentheses may hold anything; what follows it is fields from the third on.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  } catch {
    return undefined;
  }
}

/** Ends the fuzzer in good order, with its statistics, once it has used its seconds; returns those it has used. */
async function watch(child, seconds) {
  const ended = once(child, "close");
  const startedAt = Date.now();
  let used = 0;
  let asked = false;
  const timer = setInterval(() => {
    used =
      processorSeconds(child.pid) ?? (existsSync("/proc") ? used : (Date.now() - startedAt) / 1000);
    if (used >= seconds && !asked) asked = child.kill("SIGUSR1");
  }, 200);
  const [status] = await ended;
  clearInterval(timer);
  return { status, used, clock: (Date.now() - startedAt) / 1000 };
}

/** Runs a target for `seconds` of processor time; returns what libFuzzer says of it. */
async function fuzz(name, seconds, kept) {
  const work = path.join(build, "corpus", name);
  const artifacts = path.join(build, "faults", name);
  mkdirSync(work, { recursive: true });
  mkdirSync(artifacts, { recursive: true });
  const child = spawn(
    path.join(build, `fuzz_${name}`),
    [
      ...[`-max_total_time=${seconds * slowdownMax}`, `-max_len=${inputBytesMax}`],
      // An input takes less than a millisecond; but a shared machine may halt the process for a while.
      ...["-print_final_stats=1", "-timeout=300", "-report_slow_units=300", "-rss_limit_mb=2048"],
      `-artifact_prefix=${artifacts}${path.sep}`,
      ...[work, kept],
    ],
    { env: environment, stdio: ["ignore", "ignore", "pipe"] },
  );
  let text = "";
  child.stderr.setEncoding("utf8").on("data", (part) => {
    text += part;
  });
  const { status, used, clock } = await watch(child, seconds);
  const last = [...text.matchAll(/cov: (\d+) ft: (\d+) corp: (\d+)\//g)].at(-1);
  const executions = /stat::number_of_executed_units: (\d+)/.exec(text);
  if (status !== 0) process.stderr.write(`${text.slice(-8000)}\n`);
  return {
    used: Math.floor(used),
    clock: Math.round(clock),
    executions: Number(executions?.[1] ?? 0),
    edges: Number(last?.[1] ?? 0),
    features: Number(last?.[2] ?? 0),
    ok: status === 0,
    enough: used >= seconds,
    work,
  };
}

/** A small set of inputs that covers what old and new ones cover together, in place of the old. */
function minimise(name, work, kept) {
  const fresh = path.join(build, "minimised", name);
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  const args = ["-set_cover_merge=1", `-max_len=${inputBytesMax}`, fresh, kept, work];
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

/** Fuzzes one target and prints its row; true when no fault was found in all the time it was to get. */
async function campaign(name, seconds, keepCorpus) {
  const kept = path.join(kernels, "fuzz", "corpus", name);
  mkdirSync(kept, { recursive: true });
  const result = await fuzz(name, seconds, kept);
  if (result.ok && !keepCorpus) minimise(name, result.work, kept);
  const { files, bytes } = sizeOf(kept);
  const cells = [
    ...[name, result.used, result.clock, result.executions, result.edges, result.features],
    `${files} inputs, ${bytes} bytes`,
    result.ok ? (result.enough ? "no fault" : "TOO SHORT") : "FAULT",
  ];
  process.stdout.write(`| ${cells.join(" | ")} |\n`);
  return result.ok && result.enough;
}

async function main() {
  const text = { type: "string" };
  const options = parseOptions(
    {
      seconds: { ...text, default: "60" },
      target: { ...text, multiple: true },
      jobs: { ...text, default: "2" },
      "keep-corpus": { type: "boolean", default: false },
    },
    help,
  );
  const seconds = positive("seconds", options.seconds);
  const jobs = positive("jobs", options.jobs);
  const all = globSync("fuzz/*.cc", { cwd: kernels }).map((file) => path.basename(file, ".cc"));
  const names = options.target ?? all.sort();
  const unknown = names.find((name) => !all.includes(name));
  if (unknown) fail(`Unknown target ${unknown}; there are ${all.sort().join(", ")}.`, usageStatus);
  buildTargets(names, jobs);
  const header = ["target", "processor s", "clock s", "executions", "edges", "features", "corpus"];
  header.push("result");
  process.stdout.write(`| ${header.join(" | ")} |\n|${header.map(() => " --- |").join("")}\n`);
  const left = [...names];
  const results = [];
  const worker = async () => {
    for (let name = left.shift(); name !== undefined; name = left.shift())
      results.push(await campaign(name, seconds, options["keep-corpus"]));
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  if (!results.every(Boolean))
    fail(
      "A target found a fault (its input lies in kernels/build/fuzz/faults) or got too little time.",
    );
}

await main();
