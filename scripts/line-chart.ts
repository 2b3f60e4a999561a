// A chart of lines as an SVG, for pictures of results in the documentation.

/** One line; points in the units of the axes. */
export type Line = { color: string; points: readonly (readonly [x: number, y: number])[] };

export type Chart = {
  lines: readonly Line[];
  /** First and last value of an axis, and the distance of its ticks. */
  x: { from: number; to: number; tick: number };
  y: { from: number; to: number; tick: number };
  /** Under the chart: what the axes and colours mean. */
  caption: string;
  /** For people who cannot see the picture. */
  label: string;
};

const width = 720;
const height = 260;
const margin = { left: 48, right: 12, top: 12, bottom: 34 };

/** Draws `chart`, 720 by 260 pixels. */
export function lineChart(chart: Chart): string {
  const across = (value: number) =>
    margin.left +
    ((value - chart.x.from) / (chart.x.to - chart.x.from)) * (width - margin.left - margin.right);
  const up = (value: number) =>
    height -
    margin.bottom -
    ((value - chart.y.from) / (chart.y.to - chart.y.from)) * (height - margin.top - margin.bottom);
  const named = ticksOf(chart.x).map(
    (value) =>
      `<text x="${across(value).toFixed(1)}" y="${height - 18}" text-anchor="middle">${value}</text>`,
  );
  const grid = ticksOf(chart.y).map((value) => {
    const y = up(value).toFixed(1);
    return (
      `<line x1="${margin.left}" x2="${width - margin.right}" y1="${y}" y2="${y}" stroke="#c9d3ce"/>` +
      `<text x="${margin.left - 6}" y="${(up(value) + 4).toFixed(1)}" text-anchor="end">${value}</text>`
    );
  });
  const lines = chart.lines.map(({ color, points }) => {
    const path = points.map(([x, y]) => `${across(x).toFixed(1)},${up(y).toFixed(1)}`).join(" ");
    return `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="1.2"/>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${chart.label}">
<rect width="100%" height="100%" fill="#fff"/>
<g font-family="system-ui, sans-serif" font-size="11" fill="#3c4a44">
${grid.join("\n")}
${named.join("\n")}
<text x="${width / 2}" y="${height - 4}" text-anchor="middle">${chart.caption}</text>
</g>
${lines.join("\n")}
</svg>
`;
}

function ticksOf({ from, to, tick }: Chart["x"]): number[] {
  const count = Math.floor((to - from) / tick + 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => Number((from + i * tick).toPrecision(12)));
}
