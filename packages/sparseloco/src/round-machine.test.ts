import assert from "node:assert/strict";
import { test } from "node:test";
import { RoundState } from "@covenant/contracts/gauntlet";
import fc from "fast-check";
import {
  expectedPeers,
  openRound,
  type RoundEffect,
  type RoundEvent,
  type RoundRecord,
  stepRound,
} from "./round-machine.ts";

const RULES = {
  blocksPerWindow: 100,
  publishBlocks: 10,
  scoringBlocks: 400,
  settleBlocks: 20,
  minimumPeers: 2,
};

function play(events: RoundEvent[], start = openRound(RULES, 0, 1000)) {
  let record: RoundRecord = start;
  const effects: RoundEffect[] = [];
  for (const event of events) {
    const step = stepRound(RULES, record, event);
    record = step.record;
    effects.push(...step.effects);
  }
  return { record, effects: effects.map((effect) => effect.type) };
}

const announce = (hotkey: string, committedBlock: number, block: number): RoundEvent => ({
  type: "announced",
  update: { hotkey, committedBlock, committedIndex: 0 },
  block,
});
const expect = (...hotkeys: string[]): RoundEvent => ({ type: "expected", hotkeys, block: 1001 });

test("a round closes as soon as every expected peer has announced", () => {
  const { record, effects } = play([
    expect("a", "b"),
    announce("b", 1010, 1011),
    announce("a", 1005, 1020),
  ]);
  assert.equal(record.state, RoundState.SCORING);
  assert.equal(record.closeBlock, 1020);
  assert.deepEqual(effects, ["score"]);
  assert.deepEqual(
    record.announced.map((update) => update.hotkey),
    ["a", "b"],
    "ordered by commitment on the ledger",
  );
  assert.match(record.reason, /all 2 expected/);
});

test("one early announcement does not close a round that needs two", () => {
  const { record } = play([expect("a"), announce("a", 1001, 1002)]);
  assert.equal(record.state, RoundState.PUBLISHING);
  assert.match(record.reason, /at least 2/);
});

test("the window times out, late payloads count during the grace, then it closes", () => {
  const start = [expect("a", "b", "c"), announce("a", 1001, 1002), announce("b", 1001, 1003)];
  const waiting = play([...start, { type: "block", block: 1105 }]);
  assert.equal(waiting.record.state, RoundState.PUBLISHING);
  assert.match(waiting.record.reason, /waiting for 1 of 3/);
  const closed = play([...start, { type: "block", block: 1110 }]);
  assert.equal(closed.record.state, RoundState.SCORING);
  assert.match(closed.record.reason, /1 expected are missing/);
  const late = stepRound(RULES, closed.record, announce("c", 1108, 1111));
  assert.equal(late.refused, "the round has closed");
  assert.equal(late.record, closed.record);
});

test("a window that too few used is extended, but not for ever", () => {
  let record = openRound(RULES, 0, 0);
  let steps = 0;
  while (record.state !== RoundState.SCORING && steps < 1000) {
    record = stepRound(RULES, record, { type: "block", block: record.deadlineBlock }).record;
    steps += 1;
  }
  assert.equal(record.state, RoundState.SCORING);
  assert.equal(record.extensions, 20);
});

test("an announcement is taken once", () => {
  const { record } = play([
    expect("a", "b", "c"),
    announce("a", 1001, 1002),
    announce("a", 1500, 1003),
  ]);
  assert.equal(record.announced.length, 1);
  assert.equal(record.announced[0]!.committedBlock, 1001);
});

test("the way to the checkpoint, and overdue steps are asked for again", () => {
  const scoring = [expect("a", "b"), announce("a", 1, 2), announce("b", 1, 3)];
  const { record, effects } = play([
    ...scoring,
    { type: "scored", contributors: 2, nullReason: "", block: 5 },
    { type: "block", block: 25 },
    { type: "signed", signers: 1, block: 26 },
    { type: "applied", block: 27, checkpoint: true },
    { type: "block", block: 60 },
    { type: "checkpointed", root: "ab" },
  ]);
  assert.equal(record.state, RoundState.CHECKPOINTED);
  const expected = ["score", "collectSignatures", "collectSignatures", "apply"];
  assert.deepEqual(effects, [...expected, "checkpoint", "checkpoint"]);
});

test("a quorum elsewhere ends a round in any state before it is signed", () => {
  const adopted: RoundEvent = {
    type: "adopted",
    contributors: 3,
    signers: 2,
    closeBlock: 1050,
    block: 1060,
  };
  const before: RoundEvent[][] = [
    [],
    [expect("a", "b"), announce("a", 1001, 1002)],
    [expect("a", "b"), announce("a", 1, 2), announce("b", 1, 3)],
  ];
  for (const events of before) {
    const { record } = play([...events, adopted]);
    assert.equal(record.state, RoundState.SIGNED);
    assert.equal(record.closeBlock, 1050);
    const again = stepRound(RULES, record, adopted);
    assert.equal(again.refused, "the round is signed already");
  }
});

test("scoring that takes too long is abandoned", () => {
  const { effects } = play([
    expect("a", "b"),
    announce("a", 1, 2),
    announce("b", 1, 3),
    { type: "block", block: 403 },
  ]);
  assert.deepEqual(effects, ["score", "abandonScoring"]);
});

test("states only move forward, whatever happens in whatever order", () => {
  const hotkey = fc.constantFrom("a", "b", "c");
  const block = fc.integer({ min: 0, max: 3000 });
  const event: fc.Arbitrary<RoundEvent> = fc.oneof(
    fc.record({ type: fc.constant("block" as const), block }),
    fc.record({
      type: fc.constant("expected" as const),
      hotkeys: fc.uniqueArray(hotkey),
      block,
    }),
    fc.tuple(hotkey, block, block).map(([h, at, b]) => announce(h, at, b)),
    fc.record({
      type: fc.constant("scored" as const),
      contributors: fc.nat(3),
      nullReason: fc.constant("none helped"),
      block,
    }),
    fc.record({ type: fc.constant("signed" as const), signers: fc.constant(1), block }),
    fc.record({
      type: fc.constant("adopted" as const),
      contributors: fc.nat(3),
      signers: fc.constant(2),
      closeBlock: block,
      block,
    }),
    fc.record({ type: fc.constant("applied" as const), block, checkpoint: fc.boolean() }),
    fc.record({ type: fc.constant("checkpointed" as const), root: fc.constant("r") }),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      let record = openRound(RULES, 0, 0);
      for (const next of events) {
        const step = stepRound(RULES, record, next);
        const reopened =
          record.state === RoundState.PUBLISHING && step.record.state === RoundState.TRAINING;
        assert.ok(step.record.state >= record.state || (reopened && record.announced.length === 0));
        assert.notEqual(step.record.reason, "");
        const names = step.record.announced.map((update) => update.hotkey);
        assert.equal(new Set(names).size, names.length);
        record = step.record;
      }
    }),
    { numRuns: 300 },
  );
});

test("who is waited for: recent peers and newcomers, not those who vanished", () => {
  const attendance = {
    endpoints: ["steady", "vanished", "newcomer"],
    known: new Set(["steady", "vanished"]),
    recent: new Set(["steady"]),
  };
  assert.deepEqual(expectedPeers(attendance), ["steady", "newcomer"]);
});
