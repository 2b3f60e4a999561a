// `npm run bench:equal-loss`: what compressing updates costs in loss (kernels/bench/equal_loss.cc), about twenty minutes on two
// cores. The program knows its arms, seeds and bounds; this file builds, runs and writes.
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { parseOptions } from "../options.ts";
import { root } from "../root.ts";
import { commit, machine } from "./machine.ts";
import { judge, parseMeasured } from "./rows.ts";
import { textTable } from "./table.ts";

const help = `Usage: npm run bench:equal-loss -- [--quick] [--seeds N] [--rounds N] [--text FILE] [--json FILE] [--curves FILE] [--check]
  --quick        two rounds only: shows that it runs, says nothing
  --seeds N      seeds that the arms are compared on (default: 3)
  --rounds N     rounds of a run (default: 48)
  --text FILE    train on the bytes of FILE (default: data/shakespeare.txt)
  --json FILE    also write the rows, the machine and the commit to FILE
  --curves FILE  also write the held-out losses of every run, over the rounds, as CSV
  --check        exit with 1 when a row misses what it must reach
`;

const build = path.join(root, "kernels", "build");

/** Standard output of a program of the build; ends with its status when it fails. */
function outputOf(name: string, args: readonly string[]): string {
  const run = spawnSync(path.join(build, name), args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (run.status !== 0) process.exit(run.status ?? 1);
  return run.stdout;
}

function main() {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const options = parseOptions(
    {
      ...{ quick: flag, check: flag },
      ...{ seeds: text, rounds: text, text, json: text, curves: text },
    },
    help,
  );
  const startedAt = new Date().toISOString();
  const builder = path.join(root, "scripts", "build-kernels.mjs");
  const built = spawnSync(process.execPath, [builder, "--bench"], { stdio: "inherit" });
  if (built.status !== 0) process.exit(built.status ?? 1);
  const where = machine(parseMeasured(outputOf("bench_limits", ["--json", "--quick"])));
  const folder = mkdtempSync(path.join(tmpdir(), "covenant-loss-"));
  try {
    const curves = path.join(folder, "curves.csv");
    const args = ["--json", "--curves", curves, ...(options.quick ? ["--quick"] : [])];
    for (const name of ["seeds", "rounds", "text"] as const) {
      const value = options[name];
      if (value !== undefined) args.push(`--${name}`, value);
    }
    const measured = parseMeasured(outputOf("equal_loss", args));
    const rows = measured.map((row) => judge(row, undefined));
    process.stdout.write(`${textTable(rows)}\n`);
    const result = { commit: commit(), machine: where, startedAt, quick: options.quick, rows };
    if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
    if (options.curves) copyFileSync(curves, options.curves);
    if (options.check && rows.some((row) => row.meetsMust === false)) process.exitCode = 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

main();
