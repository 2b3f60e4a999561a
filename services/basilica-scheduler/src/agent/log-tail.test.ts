import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { LogTail } from "./log-tail.ts";

const directory = mkdtempSync(join(tmpdir(), "covenant-tail-"));
after(() => rmSync(directory, { recursive: true }));

const limits = { lineBytesMax: 20, linesPerSecondMax: 10, fileBytesMax: 1_000 };
let files = 0;

function open(offset = 0): { path: string; tail: LogTail } {
  files += 1;
  const path = join(directory, `${files}.log`);
  return { path, tail: new LogTail({ path, offset, limits }) };
}

test("lines come whole, also when written in pieces and across characters", () => {
  const { path, tail } = open();
  assert.deepEqual(tail.poll(0).lines, [], "a file that is not there yet has no lines");
  const bytes = Buffer.from("one\ntwö\r\nthree");
  appendFileSync(path, bytes.subarray(0, 7));
  assert.deepEqual(tail.poll(0).lines, ["one"]);
  appendFileSync(path, bytes.subarray(7));
  assert.deepEqual(tail.poll(0).lines, ["twö"]);
  assert.deepEqual(tail.poll(0, true).lines, ["three"]);
});

test("a line without end is cut once, and its rest is left out", () => {
  const { path, tail } = open();
  appendFileSync(path, "x".repeat(50));
  const [cut, ...more] = tail.poll(0).lines;
  assert.equal(cut, `${"x".repeat(20)} … (cut)`);
  assert.deepEqual(more, []);
  appendFileSync(path, `${"y".repeat(50)}\nnext\n`);
  assert.deepEqual(tail.poll(0).lines, ["next"]);
});

test("beyond the rate lines are counted and dropped; time gives room again", () => {
  const { path, tail } = open();
  appendFileSync(path, Array.from({ length: 60 }, (_, i) => `${i}\n`).join(""));
  const first = tail.poll(0);
  assert.equal(first.lines.length, 40);
  assert.equal(first.dropped, 20);
  appendFileSync(path, "a\n".repeat(15));
  const second = tail.poll(1_000);
  assert.equal(second.lines.length, 10);
  assert.equal(second.dropped, 5);
});

test("a file that has grown too large is emptied once it is read, and reading goes on", () => {
  const { path, tail } = open();
  appendFileSync(path, "line\n".repeat(300));
  tail.poll(0);
  assert.equal(statSync(path).size, 0);
  appendFileSync(path, "after\n");
  assert.deepEqual(tail.poll(10_000).lines, ["after"]);
});
