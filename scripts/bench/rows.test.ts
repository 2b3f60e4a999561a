import assert from "node:assert/strict";
import { test } from "node:test";
import {
  join,
  judge,
  type Measured,
  median,
  parseMeasured,
  parseYardsticks,
  reduce,
} from "./rows.ts";
import { markdownTable, textTable } from "./table.ts";

function row(overrides: Partial<Measured> = {}): Measured {
  return {
    id: "C4.6M",
    metric: "training",
    value: 300,
    unit: "tokens/s",
    yardstick: "PyTorch",
    yardstickValue: null,
    ratio: null,
    must: 1.5,
    aim: 3,
    note: "",
    lowerIsBetter: false,
    judgeValue: false,
    ...overrides,
  };
}

test("lines of a program become rows; what is no number is null", () => {
  const [first, second] = parseMeasured(
    '{"id":"C1","metric":"compress","value":2.5,"unit":"GB/s","must":0.5,"ratio":"0.9"}\n\n{"id":"C2","value":null}\n',
  );
  assert.equal(first?.value, 2.5);
  assert.equal(first?.ratio, null);
  assert.equal(second?.value, null);
  assert.equal(second?.yardstick, "");
});

test("a program that prints anything else is refused", () => {
  assert.throws(() => parseMeasured("warming up\n"), /no JSON: warming up/);
  assert.throws(() => parseMeasured('{"value":1}\n'), /no id/);
  assert.throws(() => parseMeasured("[1]\n"), /no id/);
  assert.throws(() => parseMeasured('{"id":"C1"}\n{"id":"C1"}\n'), /C1 comes twice/);
  assert.throws(() => parseYardsticks('{"id":"C1"}\n'), /C1 has no value/);
});

test("a yardstick joins the row of its id", () => {
  const beside = { id: "C4.6M", yardstick: "PyTorch 2", yardstickValue: 100, note: "bf16" };
  const other = row({ id: "C4.30M", note: "two cores" });
  const [joined, alone] = join([row({ note: "two cores" }), other], [beside]);
  assert.equal(joined?.ratio, 3);
  assert.equal(joined?.yardstick, "PyTorch 2");
  assert.equal(joined?.note, "two cores; bf16");
  assert.equal(alone, other);
  assert.throws(() => join([row()], [{ ...beside, id: "C5" }]), /C5 belongs to no row/);
});

test("rounds are reduced to medians, the ratio to that of its rounds", () => {
  const rounds = [
    [row({ value: 10, yardstickValue: 5, ratio: 2 })],
    [row({ value: 40, yardstickValue: 5, ratio: 8 })],
    [row({ value: 20, yardstickValue: 4, ratio: 5 })],
  ];
  const [middle] = reduce(rounds);
  assert.deepEqual([middle?.value, middle?.yardstickValue, middle?.ratio], [20, 5, 5]);
  assert.equal(reduce([[row()]])[0]?.ratio, null);
  assert.deepEqual(reduce([]), []);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([]), null);
});

test("a row is judged by its ratio, from below", () => {
  assert.equal(judge(row({ ratio: 1.5 }), undefined).meetsMust, true);
  assert.equal(judge(row({ ratio: 1.5 }), undefined).meetsAim, false);
  assert.equal(judge(row({ ratio: 1.49 }), undefined).meetsMust, false);
  assert.equal(judge(row({ ratio: 9, must: null }), undefined).meetsMust, null);
});

test("where less is better the bound is one from above", () => {
  const error = row({ ratio: 0.08, must: 0.1, aim: 0.05, lowerIsBetter: true });
  assert.equal(judge(error, undefined).meetsMust, true);
  assert.equal(judge(error, undefined).meetsAim, false);
  const bytes = row({ value: 1.7, must: 1.6, aim: 1.3, lowerIsBetter: true, judgeValue: true });
  assert.equal(judge(bytes, undefined).meetsMust, false);
});

test("without its yardstick a row meets nothing and says what to install", () => {
  const judged = judge(row({ note: "two cores" }), "install PyTorch");
  assert.deepEqual([judged.meetsMust, judged.meetsAim], [null, null]);
  assert.equal(judged.note, "two cores; install PyTorch");
  assert.equal(judge(row({ must: null }), "install PyTorch").note, "");
});

test("tables name what was missed", () => {
  const rows = [
    judge(row({ ratio: 1, note: "a|b" }), undefined),
    judge(row({ ratio: 4 }), undefined),
  ];
  const lines = textTable(rows).split("\n");
  assert.equal(lines.length, 3);
  assert.match(lines[1] ?? "", /^C4\.6M .* MISSED\s+a\|b$/);
  assert.match(lines[2] ?? "", / aim$/);
  assert.match(markdownTable(rows), /\| MISSED \| a\\\|b \|$/m);
});
