// `npm run bench`: every `bench:NAME` of package.json, one after the other. `--json FILE` gathers their rows in one file;
// --quick and --check are passed on.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { parseOptions } from "../options.ts";
import { root } from "../root.ts";

const help = `Usage: npm run bench -- [--quick] [--json FILE] [--check]
  --quick      a short form for a look, never a result to quote
  --json FILE  also write all rows to FILE
  --check      exit with 1 when a row misses what it must reach
`;

const flag = { type: "boolean", default: false } as const;
const options = parseOptions({ quick: flag, check: flag, json: { type: "string" } }, help);
const { scripts } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as {
  scripts: Record<string, string>;
};
const names = Object.keys(scripts).filter((name) => name.startsWith("bench:"));
const passed = [...(options.quick ? ["--quick"] : []), ...(options.check ? ["--check"] : [])];
const folder = mkdtempSync(path.join(tmpdir(), "covenant-bench-"));
const failed: string[] = [];
const results: { rows: unknown[] }[] = [];
try {
  for (const name of names) {
    const file = path.join(folder, `${name.replace(":", "-")}.json`);
    const args = ["run", "--silent", name, "--", "--json", file, ...passed];
    const { status } = spawnSync("npm", args, { cwd: root, stdio: "inherit" });
    if (status !== 0) failed.push(name);
    try {
      results.push(JSON.parse(readFileSync(file, "utf8")) as { rows: unknown[] });
    } catch {
      failed.push(name);
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
const [first] = results;
if (options.json && first) {
  const all = { ...first, rows: results.flatMap(({ rows }) => rows) };
  writeFileSync(options.json, `${JSON.stringify(all, null, 2)}\n`);
}
if (failed.length > 0) {
  process.stderr.write(`Failed: ${[...new Set(failed)].join(", ")}.\n`);
  process.exit(1);
}
