// Where a result was measured: what a reader needs to judge it or to repeat it.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import os from "node:os";
import { root } from "../root.ts";
import type { Measured } from "./rows.ts";

export interface Machine {
  cpu: string;
  cores: number;
  memoryGib: number;
  os: string;
  cpuFeatures: string[];
  compiler: string;
  /** Measured in the same run; the unit ends the name. */
  limits: Record<string, number>;
}

/** Instruction sets that decide which path the kernels take. */
const interesting = ["avx2", "avx512f", "avx512_bf16", "amx_bf16", "sha_ni", "asimd", "bf16"];

function cpuFeatures(): string[] {
  try {
    const flags = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"));
    const words = new Set(flags?.[1]?.split(/\s+/));
    return interesting.filter((name) => words.has(name));
  } catch {
    return [];
  }
}

const firstLine = (command: string, args: string[]) => {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8", cwd: root });
  return status === 0 ? (stdout.split("\n")[0] ?? "") : "";
};

/** Describes this machine; `limits` are the rows of the program that measures them. */
export function machine(limits: readonly Measured[]): Machine {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? "unknown",
    cores: os.availableParallelism(),
    memoryGib: Math.round(os.totalmem() / 2 ** 30),
    os: `${os.type()} ${os.release()}`,
    cpuFeatures: cpuFeatures(),
    compiler: firstLine(process.env.CXX ?? "c++", ["--version"]),
    limits: Object.fromEntries(
      limits.flatMap(({ metric, unit, value }) =>
        value === null ? [] : [[`${metric}, ${unit}`, Number(value.toPrecision(4))]],
      ),
    ),
  };
}

/** Commit that was measured; "-dirty" when the tree differs from it. */
export function commit(): string {
  const head = firstLine("git", ["rev-parse", "HEAD"]);
  const dirty = firstLine("git", ["status", "--porcelain", "--untracked-files=no"]) !== "";
  return `${head === "" ? "unknown" : head}${dirty ? "-dirty" : ""}`;
}
