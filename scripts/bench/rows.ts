// What benchmark programs print, and how their lines become the rows of a result: joined with those of yardsticks that
// run as programs of their own, reduced over repeats, judged against their bounds.

/** A line of a benchmark program; `must` and `aim` bound the ratio (value / yardstickValue), or the value where
 * `judgeValue`: from below, or from above where `lowerIsBetter`. */
export interface Measured {
  id: string;
  metric: string;
  value: number | null;
  unit: string;
  yardstick: string;
  yardstickValue: number | null;
  ratio: number | null;
  must: number | null;
  aim: number | null;
  note: string;
  lowerIsBetter: boolean;
  judgeValue: boolean;
}

/** A line of a yardstick program: its value of the row `id`, in the unit of that row. */
export interface Yardstick {
  id: string;
  yardstick: string;
  yardstickValue: number;
  note: string;
}

/** A row of the result file. */
export interface Row {
  id: string;
  metric: string;
  value: number | null;
  unit: string;
  yardstick: string | null;
  yardstickValue: number | null;
  ratio: number | null;
  must: number | null;
  aim: number | null;
  meetsMust: boolean | null;
  meetsAim: boolean | null;
  note: string;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const text = (value: unknown) => (typeof value === "string" ? value : "");
const number = (value: unknown) =>
  typeof value === "number" && Number.isFinite(value) ? value : null;

/** The JSON lines of a program's output. Throws on a line that is none, or that has no id. */
function jsonLines(output: string): Record<string, unknown>[] {
  return output
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => {
      let value: unknown;
      try {
        value = JSON.parse(line);
      } catch {
        throw new Error(`This line is no JSON: ${line.slice(0, 100)}`);
      }
      if (!isObject(value) || text(value.id) === "") {
        throw new Error(`This line has no id: ${line.slice(0, 100)}`);
      }
      return value;
    });
}

/** The lines of a benchmark program. Throws on anything that is no row, and on an id that comes twice. */
export function parseMeasured(output: string): Measured[] {
  const rows = jsonLines(output).map((line) => ({
    id: text(line.id),
    metric: text(line.metric),
    value: number(line.value),
    unit: text(line.unit),
    yardstick: text(line.yardstick),
    yardstickValue: number(line.yardstickValue),
    ratio: number(line.ratio),
    must: number(line.must),
    aim: number(line.aim),
    note: text(line.note),
    lowerIsBetter: line.lowerIsBetter === true,
    judgeValue: line.judgeValue === true,
  }));
  const twice = rows.find((row, index) => rows.findIndex(({ id }) => id === row.id) !== index);
  if (twice) throw new Error(`The row ${twice.id} comes twice.`);
  return rows;
}

/** The lines of a yardstick program. Throws on a line without a value. */
export function parseYardsticks(output: string): Yardstick[] {
  return jsonLines(output).map((line) => {
    const yardstickValue = number(line.yardstickValue);
    if (yardstickValue === null) throw new Error(`The yardstick of ${line.id} has no value.`);
    return {
      id: text(line.id),
      yardstick: text(line.yardstick),
      yardstickValue,
      note: text(line.note),
    };
  });
}

/** Middle value; the mean of the middle two when there is no middle one. null of nothing. */
export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.floor((sorted.length - 1) / 2)];
  return upper === undefined || lower === undefined ? null : (upper + lower) / 2;
}

/** One round: the rows of a program, joined by id with the yardsticks that ran beside it. Throws when a yardstick belongs to no row. */
export function join(rows: readonly Measured[], yardsticks: readonly Yardstick[]): Measured[] {
  const stray = yardsticks.find(({ id }) => !rows.some((row) => row.id === id));
  if (stray) throw new Error(`The yardstick ${stray.id} belongs to no row.`);
  return rows.map((row) => {
    const found = yardsticks.find(({ id }) => id === row.id);
    if (!found) return row;
    const { yardstick, yardstickValue } = found;
    return {
      ...row,
      yardstick,
      yardstickValue,
      ratio: row.value === null || yardstickValue <= 0 ? null : row.value / yardstickValue,
      note: [row.note, found.note].filter((note) => note !== "").join("; "),
    };
  });
}

/** Several rounds of the same rows as one: medians of value, yardstick and ratio each, so that the ratio is that of times close together. */
export function reduce(rounds: readonly (readonly Measured[])[]): Measured[] {
  const [first = []] = rounds;
  return first.map((row) => {
    const same = rounds.flatMap((round) => round.filter(({ id }) => id === row.id));
    const middle = (key: "value" | "yardstickValue" | "ratio") =>
      median(same.flatMap((each) => each[key] ?? []));
    return {
      ...row,
      value: middle("value"),
      yardstickValue: middle("yardstickValue"),
      ratio: middle("ratio"),
    };
  });
}

/** Whether a figure keeps a bound; null when there is no bound or no figure. */
function meets(row: Measured, bound: number | null): boolean | null {
  const figure = row.judgeValue ? row.value : row.ratio;
  if (bound === null || figure === null) return null;
  return row.lowerIsBetter ? figure <= bound : figure >= bound;
}

/** Judges a row. `missing` says what to install for rows that have no yardstick because one is absent. */
export function judge(row: Measured, missing: string | undefined): Row {
  const waits = missing !== undefined && row.ratio === null && !row.judgeValue && row.must !== null;
  return {
    id: row.id,
    metric: row.metric,
    value: row.value,
    unit: row.unit,
    yardstick: row.yardstick === "" ? null : row.yardstick,
    yardstickValue: row.yardstickValue,
    ratio: row.ratio,
    must: row.must,
    aim: row.aim,
    meetsMust: meets(row, row.must),
    meetsAim: meets(row, row.aim),
    note: [row.note, waits ? missing : ""].filter((note) => note !== "").join("; "),
  };
}
