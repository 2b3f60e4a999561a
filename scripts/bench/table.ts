// Rows for people: a table for the terminal, and the same as Markdown.
import type { Row } from "./rows.ts";

const figure = (value: number | null) =>
  value === null
    ? "—"
    : Math.abs(value) >= 10_000
      ? value.toFixed(0)
      : String(Number(value.toPrecision(3)));

function verdict(row: Row): string {
  if (row.meetsAim) return "aim";
  if (row.meetsMust) return "must";
  if (row.meetsMust === false) return "MISSED";
  return "—";
}

const header = ["id", "what", "value", "yardstick", "ratio", "must", "aim", "meets", "note"];

function cells(row: Row): string[] {
  const yardstick =
    row.yardstick === null
      ? "—"
      : `${row.yardstick}${row.yardstickValue === null ? "" : `: ${figure(row.yardstickValue)}`}`;
  return [
    row.id,
    row.metric,
    `${figure(row.value)} ${row.unit}`.trim(),
    yardstick,
    figure(row.ratio),
    figure(row.must),
    figure(row.aim),
    verdict(row),
    row.note,
  ];
}

/** The rows in columns, two spaces between; the note ends the line. */
export function textTable(rows: readonly Row[]): string {
  const lines = [header, ...rows.map(cells)];
  const widths = header.map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** The rows as a Markdown table. */
export function markdownTable(rows: readonly Row[]): string {
  const line = (columns: readonly string[]) =>
    `| ${columns.map((column) => column.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(header), line(header.map(() => "---")), ...rows.map((row) => line(cells(row)))].join(
    "\n",
  );
}
