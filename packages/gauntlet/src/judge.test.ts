import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ExplainScoreResponseSchema, VerdictReason } from "@covenant/contracts/gauntlet";
import type { CopyFinding } from "./copies.ts";
import { isUndecided, judgeUpdate, typicalImprovement } from "./judge.ts";
import { replayVerdict } from "./replay.ts";

const ORIGINAL: CopyFinding = { overlap: 0.1, overlapWith: "x", similarity: 0.1, copy: false };
const base = [3, 3.5, 4, 4.5, 3.2, 3.8, 4.1, 3.6];

function evidence(assignedGain: number, unassignedGain: number, spread = 0.001) {
  const after = (gain: number) =>
    base.map((loss, i) => loss - gain + spread * (i % 2 === 0 ? 1 : -1));
  return {
    assignedBefore: base,
    assignedAfter: after(assignedGain),
    unassignedBefore: base,
    unassignedAfter: after(unassignedGain),
  };
}

test("an update that lowers the loss everywhere is accepted, with numbers in words", () => {
  const judgement = judgeUpdate(ORIGINAL, evidence(0.05, 0.04));
  assert.equal(judgement.reason, VerdictReason.ACCEPTED);
  assert.match(judgement.explanation, /\+0\.0450 ± \d\.\d{4} nats per token on 16 samples/);
  assert.ok(Math.abs(judgement.assignedImprovement - 0.05) < 1e-3);
});

test("an update that raises the loss, or changes nothing measurable, does not contribute", () => {
  const worse = judgeUpdate(ORIGINAL, evidence(-0.02, -0.02));
  assert.equal(worse.reason, VerdictReason.NO_IMPROVEMENT);
  const nothing = judgeUpdate(ORIGINAL, evidence(0.0001, 0.0001, 0.05));
  assert.equal(nothing.reason, VerdictReason.NO_IMPROVEMENT);
  assert.equal(isUndecided(evidence(0.0001, 0.0001, 0.05)), true);
  assert.equal(isUndecided(evidence(0.05, 0.05)), false);
});

test("training on other samples than the assigned ones shows", () => {
  const judgement = judgeUpdate(ORIGINAL, evidence(0.01, 0.2));
  assert.equal(judgement.reason, VerdictReason.NOT_TRAINED_ON_ASSIGNED);
});

test("being a little worse on the own samples within the noise is no offence", () => {
  const judgement = judgeUpdate(ORIGINAL, evidence(0.05, 0.052, 0.02));
  assert.equal(judgement.reason, VerdictReason.ACCEPTED);
});

test("a copy is a copy however much it helps", () => {
  const copy: CopyFinding = { overlap: 0.98, overlapWith: "5Victim", similarity: 0.9, copy: true };
  const judgement = judgeUpdate(copy, undefined);
  assert.equal(judgement.reason, VerdictReason.COPY);
  assert.match(judgement.explanation, /98 % .*5Victim/);
});

test("while an update may or may not reach its share of the typical, more samples are asked for", () => {
  const noisy = evidence(0.012, 0.012, 0.02);
  assert.equal(isUndecided(noisy, 0.05), true);
  assert.equal(isUndecided(evidence(0.012, 0.012, 0.0001), 0.05), false);
  assert.equal(judgeUpdate(ORIGINAL, noisy, 0.05).reason, VerdictReason.NO_IMPROVEMENT);
});

test("a replay bundle gives the same verdict, and a changed number is named", () => {
  const losses = evidence(0.05, 0.04);
  const judgement = judgeUpdate(ORIGINAL, losses, 0.06);
  const bundle = create(ExplainScoreResponseSchema, {
    verdict: judgement,
    ...losses,
    typicalImprovement: 0.06,
  });
  assert.deepEqual(replayVerdict(bundle).differences, []);
  bundle.assignedAfter[3] = 1;
  const replay = replayVerdict(bundle);
  assert.equal(replay.agrees, false);
  assert.match(replay.differences.join("; "), /assigned improvement/);
});

test("an update that helps far less than is typical in its round does not contribute", () => {
  const all = [
    evidence(0.05, 0.05),
    evidence(0.06, 0.06),
    evidence(0.055, 0.05),
    evidence(0.01, 0.01),
  ];
  const typical = typicalImprovement(all);
  assert.ok(typical > 0.05 && typical < 0.053, `typical ${typical}`);
  const judgement = judgeUpdate(ORIGINAL, all[3], typical);
  assert.equal(judgement.reason, VerdictReason.NO_IMPROVEMENT);
  assert.match(judgement.explanation, /20 % of the round's median \+0\.05/);
  for (const losses of all.slice(0, 3)) {
    assert.equal(judgeUpdate(ORIGINAL, losses, typical).reason, VerdictReason.ACCEPTED);
  }
  assert.equal(typicalImprovement(all.slice(2)), 0, "two updates have no typical one");
});
