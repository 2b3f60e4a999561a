import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  deviation,
  frontierValue,
  groupAdvantages,
  layoutRows,
  mean,
  type PolicyObjective,
  policyTerms,
  rowValues,
  selectGroups,
  setRowValues,
  supervisedCoefficient,
  tokenWeight,
} from "./index.ts";

const rewardList = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), {
  minLength: 2,
  maxLength: 16,
});
const close = (a: number, b: number, tolerance: number) =>
  assert.ok(Math.abs(a - b) <= tolerance, `${a} is not within ${tolerance} of ${b}`);

test("advantages sum to zero, and grpo gives them unit deviation", () => {
  fc.assert(
    fc.property(rewardList, (rewards) => {
      for (const rule of ["grpo", "dr_grpo"] as const) {
        const advantages = groupAdvantages(rewards, rule);
        close(mean(advantages), 0, 1e-6);
        if (deviation(rewards) < 1e-6) assert.ok(advantages.every((a) => a === 0));
        else close(deviation(advantages), rule === "grpo" ? 1 : deviation(rewards), 1e-6);
      }
    }),
  );
});

test("groups without variance are left out and the frontier comes first", () => {
  const groups = [
    [0, 0, 0, 0],
    [1, 1, 1, 0],
    [1, 0, 0, 0],
    [1, 1, 1, 1],
    [1, 1, 0, 0],
  ].map((rewards) => ({ rewards }));
  const order = selectGroups(groups, 10).map((group) => mean(group.rewards));
  assert.deepEqual(order, [0.25, 0.5, 0.75]);
  assert.ok(frontierValue([1, 0, 0, 0]) > frontierValue([1, 1, 0, 0]));
  assert.equal(selectGroups(groups, 1).length, 1);
});

/** The loss of the policy objective as a function of log-probabilities, written down a second time. */
function lossOf(
  logProbs: number[],
  sample: { old: number[]; reference: number[]; advantage: number; weight: number },
  objective: PolicyObjective,
): number {
  return logProbs.reduce((sum, logProb, t) => {
    const ratio = Math.exp(logProb - sample.old[t]!);
    const bounded = Math.max(1 - objective.clipLow, Math.min(1 + objective.clipHigh, ratio));
    const gain = Math.min(ratio * sample.advantage, bounded * sample.advantage);
    const r = sample.reference[t]! - logProb;
    const k3 = Math.exp(r) - r - 1;
    return sum + sample.weight * (objective.klCoefficient * k3 - gain);
  }, 0);
}

test("coefficients are the derivative of the loss", () => {
  const logProb = fc.double({ min: -4, max: -0.01, noNaN: true });
  const offset = fc.double({ min: -0.6, max: 0.6, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(logProb, offset, offset), { minLength: 1, maxLength: 6 }),
      fc.double({ min: -2, max: 2, noNaN: true }),
      (tokens, advantage) => {
        const objective = { clipLow: 0.2, clipHigh: 0.28, klCoefficient: 0.05 };
        const logProbs = tokens.map(([l]) => l);
        const old = tokens.map(([l, o]) => l + o);
        const reference = tokens.map(([l, , r]) => l + r);
        const weight = 0.125;
        const terms = policyTerms(
          { logProbs, sampledLogProbs: old, referenceLogProbs: reference, advantage, weight },
          objective,
        );
        const sample = { old, reference, advantage, weight };
        close(terms.loss, lossOf(logProbs, sample, objective), 1e-9);
        logProbs.forEach((value, t) => {
          const ratio = Math.exp(value - old[t]!);
          // The loss has a kink where the clip sets in; a derivative exists on either side only.
          if (Math.abs(ratio - 0.8) < 1e-3 || Math.abs(ratio - 1.28) < 1e-3) return;
          const h = 1e-5;
          const up = logProbs.with(t, value + h);
          const down = logProbs.with(t, value - h);
          const slope = (lossOf(up, sample, objective) - lossOf(down, sample, objective)) / (2 * h);
          close(terms.coefficients[t]!, slope, 1e-4 * Math.max(1, Math.abs(slope)));
        });
      },
    ),
  );
});

test("weights add up to the mean over completions, or over completions and longest length", () => {
  const sizes = { completions: 8, tokens: 4, maxNewTokens: 16 };
  assert.equal(tokenWeight("grpo", sizes) * sizes.tokens * sizes.completions, 1);
  assert.equal(tokenWeight("dr_grpo", sizes), 1 / 128);
  assert.equal(supervisedCoefficient(4), -0.25);
  assert.equal(supervisedCoefficient(0), 0);
});

test("a layout predicts each scored token from the one before it", () => {
  const rows = [
    { tokens: [5, 6, 7, 8], scoredFrom: 2 },
    { tokens: [9, 10], scoredFrom: 1 },
  ];
  const batch = layoutRows(rows, 0);
  assert.deepEqual([...batch.tokens], [5, 6, 7, 9, 0, 0]);
  assert.deepEqual([...batch.targets], [-1, 7, 8, 10, -1, -1]);
  assert.deepEqual([batch.sequences, batch.sequenceLength, batch.scoredTokens], [2, 3, 3]);
  const values = Float32Array.from([0, 1, 2, 3, 4, 5]);
  assert.deepEqual([...rowValues(batch, 0, values)], [1, 2]);
  const into = new Float32Array(6);
  setRowValues(batch, 1, Float32Array.of(9), into);
  assert.deepEqual([...into], [0, 0, 0, 9, 0, 0]);
});
