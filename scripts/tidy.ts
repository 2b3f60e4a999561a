// House rules that no linter knows, as one check over every tracked file.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";

/** A file is read in one sitting; one that grows past this holds two ideas. */
const linesMax = 500;
const binaryBytesMax = 2 << 20;

const tracked = execFileSync(
  "git",
  ["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
  {
    encoding: "utf8",
  },
)
  .split("\0")
  .filter((file) => file !== "" && existsSync(file));

const faults: string[] = [];
const isSource = (file: string) =>
  /\.(ts|tsx|mjs|cc|h|cu|cuh)$/.test(file) && !file.includes("/gen/");
const isPure = (file: string) =>
  /^packages\/(sparseloco|gauntlet|grail|marketplace)\/src\//.test(file) &&
  !file.includes(".test.");

function checkSource(file: string, text: string) {
  const lines = text.split("\n");
  if (lines.length > linesMax)
    faults.push(`${file}: ${lines.length} lines; split it along a seam.`);
  lines.forEach((line, index) => {
    const at = `${file}:${index + 1}`;
    // Spelled in halves, so that this file does not accuse itself.
    if (new RegExp(`\\b(${"FIX"}ME|${"TO"}DO|X${"XX"})\\b`).test(line))
      faults.push(`${at}: leftover mark.`);
    if (/\bit\.only\(|\btest\.only\(|describe\.only\(/.test(line))
      faults.push(`${at}: a test is singled out.`);
    if (isPure(file) && /\b(Date\.now|Math\.random|new Date\(\))/.test(line)) {
      faults.push(`${at}: pure code takes time and randomness as arguments.`);
    }
    if (/[ \t]+$/.test(line)) faults.push(`${at}: trailing space.`);
  });
}

/** What a link says after "#" to lead to each heading. */
function anchors(markdown: string): Set<string> {
  const headings = markdown.replace(/^```.*?^```/gms, "").matchAll(/^#+ (.*)$/gm);
  return new Set(
    [...headings].map(([, text = ""]) =>
      text
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_\- ]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

function checkMarkdown(file: string, text: string) {
  for (const [, name = "", anchor] of text.matchAll(/\]\(([^)#\s]*)(?:#([^)\s]*))?\)/g)) {
    if (/^[a-z]+:/.test(name)) continue;
    const target = name === "" ? file : path.join(path.dirname(file), name);
    if (!existsSync(target)) faults.push(`${file}: broken link ${name}.`);
    else if (anchor && target.endsWith(".md") && !anchors(readFileSync(target, "utf8")).has(anchor))
      faults.push(`${file}: ${target} has no heading #${anchor}.`);
  }
}

function checkWorkspaces() {
  const reasons = readFileSync("docs/dependencies.md", "utf8");
  for (const file of tracked.filter((name) => /(^|\/)package\.json$/.test(name))) {
    if (file.includes("test/")) continue;
    const manifest = JSON.parse(readFileSync(file, "utf8")) as Record<
      string,
      Record<string, string>
    >;
    const names = { ...manifest.dependencies, ...manifest.devDependencies };
    for (const [name, version] of Object.entries(names)) {
      if (name.startsWith("@covenant/")) continue;
      if (!/^\d/.test(version)) faults.push(`${file}: ${name} is not pinned (${version}).`);
      if (!reasons.includes(`\`${name}\``)) {
        faults.push(`docs/dependencies.md: says nothing about ${name} (${file}).`);
      }
    }
    const folder = path.dirname(file);
    if (folder !== "." && !existsSync(path.join(folder, "README.md"))) {
      faults.push(`${folder}: has no README.md.`);
    }
  }
}

for (const file of tracked) {
  if (isSource(file)) checkSource(file, readFileSync(file, "utf8"));
  else if (file.endsWith(".md")) checkMarkdown(file, readFileSync(file, "utf8"));
  else if (readFileSync(file).byteLength > binaryBytesMax)
    faults.push(`${file}: larger than 2 MiB.`);
}
checkWorkspaces();

if (faults.length > 0) {
  process.stderr.write(`${faults.join("\n")}\n${faults.length} faults\n`);
  process.exit(1);
}
process.stdout.write(`${tracked.length} files are tidy.\n`);
