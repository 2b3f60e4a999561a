// Draws the curves of `npm run bench:equal-loss -- --curves curves.csv` as an SVG:
// `node scripts/loss-curves.ts curves.csv docs/images/equal-loss.svg`.
import { readFileSync, writeFileSync } from "node:fs";
import { type Line, lineChart } from "./line-chart.ts";

const [source, target] = process.argv.slice(2);
if (!source || !target) {
  process.stderr.write("Usage: node scripts/loss-curves.ts <curves.csv> <picture.svg>\n");
  process.exit(64);
}

const colors: Record<string, string> = { dense: "#3c4a44", "2bit": "#1f8a5b", "1bit": "#c9803a" };
const runs = new Map<string, { color: string; points: [number, number][] }>();
for (const row of readFileSync(source, "utf8").trimEnd().split("\n").slice(1)) {
  const [arm = "", seed = "", round, loss] = row.split(",");
  const run = runs.get(`${arm} ${seed}`) ?? { color: colors[arm] ?? "#888", points: [] };
  run.points.push([Number(round), Number(loss)]);
  runs.set(`${arm} ${seed}`, run);
}
const lines: Line[] = [...runs.values()];
const points = lines.flatMap((line) => line.points);
if (points.length < 2) {
  process.stderr.write(`${source} has no curves.\n`);
  process.exit(1);
}

const tick = 0.2;
const losses = points.map(([, loss]) => loss);
const rounds = points.map(([round]) => round);
writeFileSync(
  target,
  lineChart({
    lines,
    x: { from: Math.min(...rounds), to: Math.max(...rounds), tick: 4 },
    y: {
      from: Math.floor(Math.min(...losses) / tick) * tick,
      to: Math.ceil(Math.max(...losses) / tick) * tick,
      tick,
    },
    caption: "rounds; held-out loss in nats a byte: dense (dark), 2 bits (green), 1 bit (orange)",
    label: "Held-out loss over the rounds of every run, by how updates are exchanged",
  }),
);
