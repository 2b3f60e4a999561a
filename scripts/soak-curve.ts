// Draws the memory curve of a soak as an SVG, and prints its six parts as a table:
// `node scripts/soak-curve.ts curve.csv docs/images/soak.svg`.
import { readFileSync, writeFileSync } from "node:fs";
import { median } from "./bench/rows.ts";
import { lineChart } from "./line-chart.ts";

const [source, target] = process.argv.slice(2);
if (!source || !target) {
  process.stderr.write("Usage: node scripts/soak-curve.ts <curve.csv> <picture.svg>\n");
  process.exit(64);
}

const samples = readFileSync(source, "utf8")
  .trimEnd()
  .split("\n")
  .slice(1)
  .map((line) => line.split(",").map(Number))
  .map(([seconds = 0, resident = 0, models = 0]) => ({ minutes: seconds / 60, resident, models }));
if (samples.length < 2) {
  process.stderr.write(`${source} has no curve.\n`);
  process.exit(1);
}

const gridMib = 50;
const minutes = Math.max(...samples.map((s) => s.minutes));
const mib = Math.ceil(Math.max(...samples.map((s) => s.resident)) / gridMib) * gridMib;

writeFileSync(
  target,
  lineChart({
    lines: [
      { color: "#8fb8a6", points: samples.map((s) => [s.minutes, s.models]) },
      { color: "#1d5c45", points: samples.map((s) => [s.minutes, s.resident]) },
    ],
    x: { from: 0, to: minutes, tick: minutes > 30 ? 10 : minutes > 5 ? 2 : 1 },
    y: { from: 0, to: mib, tick: gridMib },
    caption: "minutes; MiB of the process (dark) and of its models (light)",
    label: "Memory of the process and of its models over time",
  }),
);

const parts = 6;
const rows = ["| minutes | median | highest | models, median |", "| --- | --- | --- | --- |"];
for (let part = 0; part < parts; part++) {
  const [from, to] = [(minutes * part) / parts, (minutes * (part + 1)) / parts];
  const inside = samples.filter((s) => s.minutes > from && s.minutes <= to);
  const resident = inside.map((s) => s.resident);
  const figures = [median(resident), Math.max(...resident), median(inside.map((s) => s.models))];
  const cells = figures.map((mib) => mib?.toFixed(1) ?? "");
  rows.push(`| ${[`${from.toFixed(0)}–${to.toFixed(0)}`, ...cells].join(" | ")} |`);
}
process.stdout.write(`${rows.join("\n")}\n`);
