// Builds kernels/ with CMake into folders beside the one of build-kernels.mjs: other compilers, sanitizers, machines.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { fail } from "./options.ts";
import { root } from "./root.ts";

export const kernels = path.join(root, "kernels");

/** Whether a program is there, by asking for its version. */
export const has = (command: string) => spawnSync(command, ["--version"]).status === 0;

/** A folder of CMake's belongs to one place and one generator; in a clone that was moved it starts afresh. */
function dropForeignCache(folder: string, generator: string) {
  const cache = path.join(folder, "CMakeCache.txt");
  if (!existsSync(cache)) return;
  const text = readFileSync(cache, "utf8");
  const own = [
    `CMAKE_HOME_DIRECTORY:INTERNAL=${kernels}\n`,
    `CMAKE_GENERATOR:INTERNAL=${generator}\n`,
  ];
  if (own.every((line) => text.includes(line))) return;
  rmSync(cache);
  rmSync(path.join(folder, "CMakeFiles"), { recursive: true, force: true });
}

interface Build {
  folder: string;
  /** CMake's -D options: name to value. */
  definitions: Record<string, string>;
  /** Default: everything. */
  targets?: readonly string[];
  /** Files compiled at once. */
  jobs: number;
  /** What is said when it does not build, after what the tools printed. */
  failure: string;
}

/** Configures and builds, quietly; ends the script when that fails. */
export function buildKernels({ folder, definitions, targets = [], jobs, failure }: Build) {
  if (!has("cmake")) fail("CMake 3.20 or newer is needed: on Debian run apt-get install cmake.");
  const generator = has("ninja") ? "Ninja" : "Unix Makefiles";
  dropForeignCache(folder, generator);
  const defined = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
  const only = targets.length > 0 ? ["--target", ...targets] : [];
  for (const args of [
    ["-S", kernels, "-B", folder, "-G", generator, ...defined],
    ["--build", folder, "--parallel", String(jobs), ...only],
  ]) {
    const step = spawnSync("cmake", args, { encoding: "utf8", maxBuffer: 256 << 20 });
    if (step.status === 0) continue;
    process.stderr.write(`${step.stdout ?? ""}${step.stderr ?? ""}`);
    fail(failure);
  }
}
