import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { VerdictReason } from "@covenant/contracts/gauntlet";
import { applyRound, initialGauntletState, scorecard } from "./state.ts";
import { studentQuantile } from "./statistics.ts";
import { computeWeights } from "./weights.ts";

type Rated = { mu: number; sigma: number; bma: number };

/** What other implementations must compute alike; see the file's `about`. */
const vectors = JSON.parse(
  readFileSync(new URL("../../../test/vectors/gauntlet/v1.json", import.meta.url), "utf8"),
) as {
  quantiles: { p: number; freedom: number; quantile: number }[];
  rounds: {
    results: { hotkey: string; reason: VerdictReason; comparableImprovement: number }[];
    peers: Record<string, Rated>;
  }[];
  final: Record<string, { finalScore: number; weightShare: number }>;
  shares: number[];
};

function assertNear(actual: number, expected: number, what: string): void {
  const error = Math.abs(actual - expected) / Math.max(1, Math.abs(expected));
  assert.ok(error < 1e-9, `${what}: ${actual}, expected ${expected}`);
}

test("quantiles match the vectors", () => {
  assert.ok(vectors.quantiles.length >= 5);
  for (const { p, freedom, quantile } of vectors.quantiles) {
    assertNear(studentQuantile(p, freedom), quantile, `t(${p}, ${freedom})`);
  }
});

test("six rounds of ratings, averages and scores match the vectors", () => {
  let state = initialGauntletState();
  for (const [round, { results, peers }] of vectors.rounds.entries()) {
    const explained = results.map((result) => ({ ...result, explanation: "" }));
    state = applyRound(state, round, explained);
    for (const [hotkey, expected] of Object.entries(peers)) {
      for (const name of ["mu", "sigma", "bma"] as const) {
        assertNear(state.peers[hotkey]![name], expected[name], `${hotkey} ${name} in ${round}`);
      }
    }
  }
  const { scores } = scorecard(state);
  assert.equal(scores.length, Object.keys(vectors.final).length);
  for (const { hotkey, finalScore, weightShare } of scores) {
    assertNear(finalScore, vectors.final[hotkey]!.finalScore, hotkey);
    assertNear(weightShare, vectors.final[hotkey]!.weightShare, hotkey);
  }
});

test("the shares of 25 peers match the vectors", () => {
  const scores = new Map(
    Array.from({ length: 25 }, (_, i) => [`p${String(i).padStart(2, "0")}`, 25 - i]),
  );
  const shares = [...computeWeights(scores).shares.values()];
  assert.equal(shares.length, vectors.shares.length);
  for (const [i, share] of shares.entries()) assertNear(share, vectors.shares[i]!, `share ${i}`);
});
