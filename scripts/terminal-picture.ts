// Draws captured terminal text as an SVG: `node scripts/terminal-picture.ts capture.txt docs/images/show.svg`.
import { readFileSync, writeFileSync } from "node:fs";

const [source, target] = process.argv.slice(2);
if (!source || !target) {
  process.stderr.write("Usage: node scripts/terminal-picture.ts <capture.txt> <picture.svg>\n");
  process.exit(64);
}

const columnPixels = 7.25;
const linePixels = 17;
const marginPixels = 16;
const columnsMax = 140;

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const lines = readFileSync(source, "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => line.slice(0, columnsMax));
const width = Math.ceil(
  Math.max(...lines.map((line) => line.length)) * columnPixels + 2 * marginPixels,
);
const height = lines.length * linePixels + 2 * marginPixels;
const rows = lines.map(
  (line, index) =>
    `<text x="${marginPixels}" y="${marginPixels + (index + 0.8) * linePixels}" xml:space="preserve">${escaped(line)}</text>`,
);
writeFileSync(
  target,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="Terminal output of npm start">
<rect width="100%" height="100%" rx="8" fill="#141a18"/>
<g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="12" fill="#d8e2dd">
${rows.join("\n")}
</g>
</svg>
`,
);
