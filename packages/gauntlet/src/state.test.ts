import assert from "node:assert/strict";
import { test } from "node:test";
import { VerdictReason } from "@covenant/contracts/gauntlet";
import fc from "fast-check";
import {
  applyRound,
  initialGauntletState,
  isAmnesty,
  type RoundResult,
  scorecard,
} from "./state.ts";

function result(hotkey: string, reason: VerdictReason, gain = 0): RoundResult {
  return { hotkey, reason, explanation: "test", comparableImprovement: gain };
}

/** The cast of a demonstration run; `order` permutes who is best among the honest ones in a round. */
function playedRun(
  rounds: number,
  lateFrom: number,
  gainOf: (peer: number, round: number) => number,
) {
  let state = initialGauntletState();
  for (let round = 0; round < rounds; round += 1) {
    const results = ["h0", "h1", "h2", "h3"].map((hotkey, i) =>
      result(hotkey, VerdictReason.ACCEPTED, gainOf(i, round)),
    );
    if (round >= lateFrom) {
      results.push(result("late", VerdictReason.ACCEPTED, gainOf(4, round)));
    }
    results.push(result("copier", VerdictReason.COPY));
    results.push(result("noise", VerdictReason.NO_IMPROVEMENT, -0.1));
    state = applyRound(state, round, results);
  }
  return state;
}

test("after 30 rounds every honest peer has a solid share and cheats have nothing", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e6 }), (salt) => {
      const gain = (peer: number, round: number) =>
        ((Math.imul(peer * 131 + round * 31 + salt, 2654435761) >>> 0) / 2 ** 32) * 0.05;
      const { scores } = scorecard(playedRun(30, 14, gain));
      const share = new Map(scores.map((score) => [score.hotkey, score.weightShare]));
      for (const hotkey of ["h0", "h1", "h2", "h3", "late"]) {
        assert.ok(share.get(hotkey)! > 0.1, `${hotkey} has ${share.get(hotkey)}`);
      }
      assert.equal(share.get("copier"), 0);
      assert.equal(share.get("noise"), 0);
    }),
    { numRuns: 30 },
  );
});

test("the weakest honest peer, last in every round, still keeps a share", () => {
  const { scores } = scorecard(playedRun(30, 14, (peer) => 0.05 - peer * 0.01));
  const last = scores.find((score) => score.hotkey === "h3");
  const late = scores.find((score) => score.hotkey === "late");
  assert.ok(last!.weightShare > 0.1, `h3 ${JSON.stringify(last)}`);
  assert.ok(late!.weightShare > 0.1, `late ${JSON.stringify(late)}`);
});

test("a peer that turns to cheating loses its share", () => {
  let state = playedRun(20, 99, () => 0.02);
  for (let round = 20; round < 45; round += 1) {
    state = applyRound(state, round, [
      result("h0", VerdictReason.COPY),
      ...["h1", "h2", "h3"].map((hotkey) => result(hotkey, VerdictReason.ACCEPTED, 0.02)),
    ]);
  }
  const score = scorecard(state).scores.find(({ hotkey }) => hotkey === "h0");
  assert.equal(score?.weightShare, 0);
  assert.match(score?.reasons[0] ?? "", /round 44: COPY/);
});

test("a fault of the validator changes neither rating nor average", () => {
  const before = playedRun(5, 99, () => 0.02);
  const after = applyRound(before, 5, [
    result("h0", VerdictReason.VALIDATOR_FAULT),
    result("h1", VerdictReason.ACCEPTED, 0.01),
    result("h2", VerdictReason.ACCEPTED, 0.02),
  ]);
  const [was, is] = [before.peers.h0!, after.peers.h0!];
  assert.deepEqual([is.mu, is.sigma, is.bma], [was.mu, was.sigma, was.bma]);
});

test("a round in which nobody helps is counted against nobody", () => {
  const before = playedRun(5, 99, () => 0.02);
  const results = ["h0", "h1", "h2", "h3"].map((h) => result(h, VerdictReason.NO_IMPROVEMENT, -1));
  assert.equal(isAmnesty(results), true);
  const after = applyRound(before, 5, results);
  for (const { hotkey } of results) {
    assert.equal(after.peers[hotkey]!.bma, before.peers[hotkey]!.bma);
    assert.equal(after.peers[hotkey]!.mu, before.peers[hotkey]!.mu);
  }
});

test("state survives JSON and refuses to judge a round twice", () => {
  const state = playedRun(8, 3, (peer, round) => peer * 0.01 + round * 0.001);
  const copy = JSON.parse(JSON.stringify(state));
  const next = [result("h0", VerdictReason.ACCEPTED, 1), result("h1", VerdictReason.MISSING)];
  assert.deepEqual(applyRound(copy, 8, next), applyRound(state, 8, next));
  assert.throws(() => applyRound(state, 7, next), RangeError);
});

test("the order in which results are listed does not matter", () => {
  const results = [
    result("a", VerdictReason.ACCEPTED, 0.3),
    result("b", VerdictReason.ACCEPTED, 0.1),
    result("c", VerdictReason.COPY),
  ];
  const forward = applyRound(initialGauntletState(), 0, results).peers;
  const backward = applyRound(initialGauntletState(), 0, [...results].reverse()).peers;
  assert.deepEqual(forward.a, backward.a);
  assert.deepEqual(forward.c, backward.c);
  assert.ok(forward.a!.mu > forward.b!.mu && forward.b!.mu > forward.c!.mu);
});
