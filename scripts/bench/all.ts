// `npm run bench`: every `bench:NAME` of package.json, one after the other. `--json FILE` gathers their rows in one file;
// --quick and --check are passed on.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { root } from "./root.ts";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    check: { type: "boolean", default: false },
    json: { type: "string" },
  },
});
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
