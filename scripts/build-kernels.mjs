// Configures and builds kernels/ into kernels/build: the Node-API addon, with --tests what ctest runs, with --bench the
// benchmark programs. Does nothing when the sources have not changed since the last build. Runs on any Node from 18 on
// and without any package of ours, because setting up a fresh clone starts here.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const source = path.join(root, "kernels");

const help = `Usage: npm run build:kernels -- [--tests] [--emulated] [--bench] [--cuda] [--force] [--jobs N]
  --tests    also build the tests that ctest runs, and the emulated CUDA library
  --emulated also build the emulated CUDA library, with which the tests in Node.js have devices
  --bench    also build the benchmark programs
  --cuda     also build the CUDA library (needs nvcc)
  --force    build even when nothing has changed
  --jobs N   compile at most N files at once (default: the number of processors)
`;

function fail(sentence, status = 1) {
  process.stderr.write(`${sentence}\n`);
  process.exit(status);
}

function parseArguments(args) {
  const options = {
    tests: false,
    emulated: false,
    bench: false,
    cuda: false,
    force: false,
    jobs: os.availableParallelism?.() ?? 2,
  };
  for (let at = 0; at < args.length; at++) {
    if (args[at] === "--tests") options.tests = true;
    else if (args[at] === "--emulated") options.emulated = true;
    else if (args[at] === "--bench") options.bench = true;
    else if (args[at] === "--cuda") options.cuda = true;
    else if (args[at] === "--force") options.force = true;
    else if (args[at] === "--jobs") {
      const jobs = args[++at] ?? "";
      if (!/^[1-9]\d*$/.test(jobs)) fail("--jobs takes a whole number above 0.", 64);
      options.jobs = Number(jobs);
    } else if (args[at] === "--help" || args[at] === "-h") {
      process.stdout.write(help);
      process.exit(0);
    } else fail(`Unknown option '${args[at]}'.\n${help.trimEnd()}`, 64);
  }
  return options;
}

const output = (command, args) => {
  const result = spawnSync(command, args, { encoding: "utf8" });
  return result.status === 0 ? result.stdout : undefined;
};

/** The C++20 compiler to use: the one CXX names, else the first of the usual names that compiles a C++20 program. */
function findCompiler(scratch) {
  const probe = path.join(scratch, "probe.cc");
  mkdirSync(scratch, { recursive: true });
  writeFileSync(
    probe,
    "#include <span>\n#include <bit>\nint main() { return std::popcount(0u); }\n",
  );
  const names = process.env.CXX ? [process.env.CXX] : ["c++", "g++", "clang++"];
  return names.find((name) => {
    const args = ["-std=c++20", "-fsyntax-only", probe];
    return spawnSync(name, args, { stdio: "ignore" }).status === 0;
  });
}

function requireTools(build) {
  const cmake = output("cmake", ["--version"]);
  const version = /version (\d+)\.(\d+)/.exec(cmake ?? "");
  const cmakeOk = version && (Number(version[1]) > 3 || Number(version[2]) >= 20);
  const ninja = output("ninja", ["--version"]) !== undefined;
  const make = ninja || output("make", ["--version"]) !== undefined;
  const compiler = findCompiler(path.join(build, ".probe"));
  if (cmakeOk && make && compiler) return { ninja, compiler };
  const missing = [
    ...(cmakeOk ? [] : ["CMake 3.20 or newer"]),
    ...(make ? [] : ["Ninja or make"]),
    ...(compiler ? [] : ["a C++20 compiler"]),
  ].join(" and ");
  return fail(
    `The kernels need ${missing}: on Debian or Ubuntu run "apt-get install cmake ninja-build g++", on macOS run ` +
      `"xcode-select --install" and "brew install cmake ninja".`,
  );
}

function* filesUnder(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) {
      if (file !== path.join(source, "build")) yield* filesUnder(file);
    } else if (/\.(cc|h|inc|cu|cuh|cmake)$|^CMakeLists\.txt$/.test(entry.name)) yield file;
  }
}

/** Folders that only one kind of build looks at. */
const foldersOf = {
  addon: ["node"],
  tests: ["tests", "examples", "soak", "cuda"],
  emulated: ["cuda"],
  bench: ["bench", "cuda"],
  cuda: ["cuda"],
};
const kindFolders = [...new Set(Object.values(foldersOf).flat()), "fuzz", "cmake"];

/** Hash of everything that decides what a kind of build makes. */
function fingerprint(kind) {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([process.platform, process.arch, process.env.CXX ?? "", 2]));
  for (const file of [...filesUnder(source)].sort()) {
    const name = path.relative(source, file);
    const folder = name.split(path.sep)[0];
    if (kindFolders.includes(folder) && !foldersOf[kind].includes(folder)) continue;
    hash.update(`${name}\0`).update(readFileSync(file)).update("\0");
  }
  return hash.digest("hex");
}

function readStamp(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return {};
  }
}

/** Runs a build step silently and gives what it printed; that is shown only if it fails. */
function step(command, args, failure) {
  const result = spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 64 << 20 });
  if (result.status === 0) return result.stdout;
  process.stderr.write(`${result.stdout ?? ""}${result.stderr ?? ""}`);
  fail(failure);
}

function main() {
  const options = parseArguments(process.argv.slice(2));
  const build = path.join(source, "build");
  const addon = path.join(build, "covenant_kernels.node");
  const stampFile = path.join(build, ".stamp.json");
  const kinds = [
    "addon",
    ...["tests", "emulated", "bench", "cuda"].filter((kind) => options[kind]),
  ];
  const wanted = Object.fromEntries(kinds.map((kind) => [kind, fingerprint(kind)]));
  const stamp = readStamp(stampFile);
  const upToDate = existsSync(addon) && kinds.every((kind) => stamp[kind] === wanted[kind]);
  if (!options.force && upToDate) return;

  const { ninja, compiler } = requireTools(build);
  process.stderr.write("Building the kernels (about a minute) …\n");
  const generator = ninja ? "Ninja" : "Unix Makefiles";
  const cache = path.join(build, "CMakeCache.txt");
  // A build folder belongs to one generator and one place; a clone that was moved starts afresh.
  if (existsSync(cache)) {
    const text = readFileSync(cache, "utf8");
    const sameGenerator = text.includes(`CMAKE_GENERATOR:INTERNAL=${generator}\n`);
    const samePlace = text.includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${source}\n`);
    if (!sameGenerator || !samePlace) rmSync(build, { recursive: true });
  }
  const configured = step(
    "cmake",
    [
      ...["-S", source, "-B", build, "-G", generator, `-DCMAKE_CXX_COMPILER=${compiler}`],
      // One architecture shows that the CUDA code compiles; all of them take minutes.
      ...(options.cuda
        ? ["-UCOVENANT_CUDA_ARCHITECTURES", "-UCOVENANT_CUDA_PTX"]
        : ["-DCOVENANT_CUDA_ARCHITECTURES=90a", "-DCOVENANT_CUDA_PTX="]),
    ],
    "The kernels could not be configured; the messages above say why.",
  );
  for (const [line] of configured.matchAll(/(?<=^-- )CUDA.*$/gm)) process.stderr.write(`${line}\n`);
  // "all" is the addon, the tests and the emulated library.
  const targets = [
    options.tests ? "all" : "covenant_node",
    ...(options.emulated ? ["covenant_cuda_emulated_library"] : []),
    ...(options.bench ? ["benches"] : []),
    ...(options.cuda ? ["covenant_cuda"] : []),
  ];
  step(
    "cmake",
    ["--build", build, "--parallel", String(options.jobs), "--target", ...targets],
    "The kernels could not be compiled; the messages above say where.",
  );
  writeFileSync(stampFile, JSON.stringify({ ...stamp, ...wanted }));
}

try {
  main();
} catch (error) {
  if (error?.syscall === undefined) throw error;
  fail(`kernels/build cannot be written or the sources cannot be read: ${error.message}.`);
}
