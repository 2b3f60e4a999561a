// `npm run bench:kernels`: builds the programs kernels/bench/*_bench.cc, runs each beside its yardstick
// (kernels/bench/yardsticks/NAME.ts, or NAME.py where a Python with its modules is at hand), and prints one table. What is measured
// against what, and with which bounds, the programs know; this file only runs, joins and judges.
import { spawnSync } from "node:child_process";
import { globSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { fail, parseOptions, usageStatus } from "../options.ts";
import { root } from "../root.ts";
import { commit, machine } from "./machine.ts";
import {
  join,
  judge,
  type Measured,
  parseMeasured,
  parseYardsticks,
  type Row,
  reduce,
} from "./rows.ts";
import { markdownTable, textTable } from "./table.ts";

const help = `Usage: npm run bench:kernels -- [--quick] [--only NAME,…] [--json FILE] [--markdown FILE] [--check]
  --quick          a short form for a look, never a result to quote
  --only NAME,…    these programs only (kernels/bench/NAME_bench.cc)
  --json FILE      also write the rows, the machine and the commit to FILE
  --markdown FILE  also write them as Markdown
  --check          exit with 1 when a row misses what it must reach
COVENANT_PYTHON names the Python that has the yardsticks' modules (default: python3).
`;

/** Rounds of a program that has a yardstick of its own: one after the other, so that other load meets both. */
const roundsOfYardsticks = 3;
const programTimeoutMs = 1_800_000;

const build = path.join(root, "kernels", "build");
const say = (line: string) => process.stderr.write(`${line}\n`);

/** Standard output of a program; its complaints go to the terminal. */
function outputOf(command: string, args: readonly string[]): string {
  const run = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    timeout: programTimeoutMs,
    maxBuffer: 16 << 20,
  });
  if (run.status !== 0) {
    const how = run.status === null ? `was ended by ${run.signal}` : `exits with ${run.status}`;
    throw new Error(`${path.basename(command)} ${args.join(" ")} ${how}.`);
  }
  return run.stdout;
}

/** The Python for yardsticks, or what to install. */
function findPython(modules: readonly string[]): { python?: string; missing: string } {
  const python = process.env.COVENANT_PYTHON ?? "python3";
  const absent = modules.filter((name) => spawnSync(python, ["-c", `import ${name}`]).status !== 0);
  const missing = `install a Python with ${absent.join(" and ")} and name it in COVENANT_PYTHON`;
  return absent.length === 0 ? { python, missing } : { missing };
}

interface Program {
  name: string;
  file: string;
  yardstick?: string;
}

/** The programs that there are, or those of `only`. */
function programs(only: readonly string[] | undefined): Program[] {
  const all = globSync("kernels/bench/*_bench.cc", { cwd: root })
    .map((file) => path.basename(file).replace(/_bench\.cc$/, ""))
    .filter((name) => name !== "limits")
    .sort();
  const unknown = only?.filter((name) => !all.includes(name)) ?? [];
  if (unknown.length > 0) {
    fail(`There is no program ${unknown.join(", ")}; there are ${all.join(", ")}.`, usageStatus);
  }
  return all
    .filter((name) => only?.includes(name) ?? true)
    .map((name) => {
      const [script] = globSync(`kernels/bench/yardsticks/${name}.{py,ts}`, { cwd: root });
      const file = path.join(build, `bench_${name}`);
      return script ? { name, file, yardstick: path.join(root, script) } : { name, file };
    });
}

/** Rows of one program. */
function measure(program: Program, quick: boolean): Row[] {
  const flags = quick ? ["--json", "--quick"] : ["--json"];
  if (program.yardstick === undefined) {
    return parseMeasured(outputOf(program.file, flags)).map((row) => judge(row, undefined));
  }
  if (program.yardstick.endsWith(".ts")) {
    const rows = parseMeasured(outputOf(program.file, flags));
    const yardsticks = parseYardsticks(outputOf(process.execPath, [program.yardstick, ...flags]));
    return join(rows, yardsticks).map((row) => judge(row, undefined));
  }
  const { python, missing } = findPython(["torch", "transformers"]);
  const rounds: Measured[][] = [];
  for (let round = 0; round < (quick || !python ? 1 : roundsOfYardsticks); round++) {
    const rows = parseMeasured(outputOf(program.file, flags));
    const yardsticks = python
      ? parseYardsticks(outputOf(python, [program.yardstick, ...flags]))
      : [];
    rounds.push(join(rows, yardsticks));
  }
  return reduce(rounds).map((row) => judge(row, python ? undefined : missing));
}

function write(file: string, text: string) {
  mkdirSync(path.dirname(path.resolve(file)), { recursive: true });
  writeFileSync(file, text);
}

function main() {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const options = parseOptions(
    { quick: flag, only: text, json: text, markdown: text, check: flag },
    help,
  );
  const startedAt = new Date().toISOString();
  const chosen = programs(options.only?.split(","));
  const builder = path.join(root, "scripts", "build-kernels.mjs");
  const built = spawnSync(process.execPath, [builder, "--bench"], { stdio: "inherit" });
  if (built.status !== 0) process.exit(built.status ?? 1);

  const quick = options.quick;
  const flags = quick ? ["--json", "--quick"] : ["--json"];
  say("Measuring the limits of the machine …");
  const where = machine(parseMeasured(outputOf(path.join(build, "bench_limits"), flags)));
  const rows: Row[] = [];
  const faults: string[] = [];
  for (const program of chosen) {
    say(`Measuring ${program.name} …`);
    try {
      rows.push(...measure(program, quick));
    } catch (error) {
      faults.push(`${program.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  process.stdout.write(`${textTable(rows)}\n`);
  const result = { commit: commit(), machine: where, startedAt, quick, rows };
  if (options.json) write(options.json, `${JSON.stringify(result, null, 2)}\n`);
  if (options.markdown) write(options.markdown, `${markdownTable(rows)}\n`);
  for (const fault of faults) say(fault);
  const missed = rows.filter((row) => row.meetsMust === false).map((row) => row.id);
  if (missed.length > 0) say(`Below what must be reached: ${missed.join(", ")}.`);
  if (faults.length > 0 || (options.check && missed.length > 0)) process.exit(1);
}

main();
