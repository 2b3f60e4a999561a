// Draws the memory curve of a soak as an SVG: `node scripts/soak-curve.ts curve.csv docs/images/soak.svg`.
import { readFileSync, writeFileSync } from "node:fs";

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
  .map(([seconds = 0, resident = 0, models = 0]) => ({ seconds, resident, models }));
if (samples.length < 2) {
  process.stderr.write(`${source} has no curve.\n`);
  process.exit(1);
}

const width = 720;
const height = 260;
const margin = { left: 48, right: 12, top: 12, bottom: 34 };
const gridMib = 50;

const minutesMost = Math.max(...samples.map(({ seconds }) => seconds)) / 60;
const mibMost = Math.ceil(Math.max(...samples.map((s) => s.resident)) / gridMib) * gridMib;
const x = (minutes: number) =>
  margin.left + (minutes / minutesMost) * (width - margin.left - margin.right);
const y = (mib: number) =>
  height - margin.bottom - (mib / mibMost) * (height - margin.top - margin.bottom);

const path = (of: "resident" | "models") =>
  samples.map((s) => `${x(s.seconds / 60).toFixed(1)},${y(s[of]).toFixed(1)}`).join(" ");
const stepMinutes = minutesMost > 30 ? 10 : minutesMost > 5 ? 2 : 1;
const ticks = Array.from(
  { length: Math.floor(minutesMost / stepMinutes) + 1 },
  (_, i) => i * stepMinutes,
).map(
  (minutes) =>
    `<text x="${x(minutes).toFixed(1)}" y="${height - 18}" text-anchor="middle">${minutes}</text>`,
);
const grid = Array.from({ length: mibMost / gridMib + 1 }, (_, i) => i * gridMib).map(
  (mib) =>
    `<line x1="${margin.left}" x2="${width - margin.right}" y1="${y(mib)}" y2="${y(mib)}" stroke="#c9d3ce"/>` +
    `<text x="${margin.left - 6}" y="${y(mib) + 4}" text-anchor="end">${mib}</text>`,
);

writeFileSync(
  target,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="Memory of the process and of its models over time">
<rect width="100%" height="100%" fill="#fff"/>
<g font-family="system-ui, sans-serif" font-size="11" fill="#3c4a44">
${grid.join("\n")}
${ticks.join("\n")}
<text x="${width / 2}" y="${height - 4}" text-anchor="middle">minutes; MiB of the process (dark) and of its models (light)</text>
</g>
<polyline points="${path("models")}" fill="none" stroke="#8fb8a6" stroke-width="1"/>
<polyline points="${path("resident")}" fill="none" stroke="#1d5c45" stroke-width="1.2"/>
</svg>
`,
);
