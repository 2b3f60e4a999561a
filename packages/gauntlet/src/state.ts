import { VerdictReason } from "@covenant/contracts/gauntlet";
import { INITIAL_RATING, ordinalOf, type Placement, rateMatch } from "./rating.ts";
import { indicatorOf, reasonName } from "./reasons.ts";
import { computeWeights, WEIGHT_RULES, type WeightRules, type WeightShares } from "./weights.ts";

/** Share of the newest round in the moving average of the proof of training. */
const BMA_ALPHA = 0.05;
/** Rounds after which a low average counts against a peer. */
const BMA_WARMUP_ROUNDS = 10;
const BMA_THRESHOLD = 0.1;
const REASONS_KEPT = 8;
/**
 * Lowest ordinal that counts. Plackett-Luce pushes whoever is always last among the honest below zero, a late joiner first of all;
 * work that passes every check still earns. Cheats gain nothing by it: their moving average is not positive.
 */
const ORDINAL_FLOOR = 1;

/** What is remembered of one peer. */
export type PeerRecord = {
  mu: number;
  sigma: number;
  /** Moving average of the indicator, in [-1, 1]; below 0 it counts as 0. */
  bma: number;
  roundsAccepted: number;
  roundsRejected: number;
  firstRound: number;
  /** Newest first. */
  reasons: readonly string[];
};

/** Everything the scores depend on; plain data, so it can be stored and replayed. */
export type GauntletState = {
  version: 1;
  /** Last judged round; -1 before the first. */
  lastRound: number;
  peers: Readonly<Record<string, PeerRecord>>;
};

/** A peer's result in a round, as far as the scores need it. */
export type RoundResult = {
  hotkey: string;
  reason: VerdictReason;
  explanation: string;
  /** Improvement on the samples all peers of the round are compared on, nats per token. */
  comparableImprovement: number;
};

/** The state before the first round. */
export function initialGauntletState(): GauntletState {
  return { version: 1, lastRound: -1, peers: {} };
}

function newPeer(round: number): PeerRecord {
  const { mu, sigma } = INITIAL_RATING;
  return {
    mu,
    sigma,
    bma: 0,
    roundsAccepted: 0,
    roundsRejected: 0,
    firstRound: round,
    reasons: [],
  };
}

/**
 * True when a round says nothing about anybody: several updates passed the checks and not one helped, so the fault lies in the
 * state or the data, and nobody is marked down for it.
 */
export function isAmnesty(results: readonly RoundResult[]): boolean {
  const evaluated = results.filter(
    ({ reason }) =>
      reason === VerdictReason.ACCEPTED ||
      reason === VerdictReason.NO_IMPROVEMENT ||
      reason === VerdictReason.NOT_TRAINED_ON_ASSIGNED,
  );
  return evaluated.length >= 3 && evaluated.every((r) => r.reason !== VerdictReason.ACCEPTED);
}

/**
 * The state after a round. All judged peers form one Plackett-Luce match: accepted ones by their improvement on the common samples,
 * all others tied last; faults of the validator keep a peer out of it. Throws a RangeError when the round was judged already.
 */
export function applyRound(
  state: GauntletState,
  round: number,
  results: readonly RoundResult[],
): GauntletState {
  if (round <= state.lastRound) throw new RangeError(`round ${round} was judged already`);
  const peers: Record<string, PeerRecord> = { ...state.peers };
  const amnesty = isAmnesty(results);
  const ratings = amnesty ? new Map() : rateMatch(placementsOf(state, round, results));
  for (const result of results) {
    const before = peers[result.hotkey] ?? newPeer(round);
    const indicator = amnesty ? undefined : indicatorOf(result.reason);
    const accepted = result.reason === VerdictReason.ACCEPTED;
    const rejected = indicator !== undefined && !accepted;
    const note = amnesty ? " (no peer helped this round: not counted)" : "";
    const line = `round ${round}: ${reasonName(result.reason)}: ${result.explanation}${note}`;
    peers[result.hotkey] = {
      ...before,
      ...ratings.get(result.hotkey),
      bma: indicator === undefined ? before.bma : mix(before.bma, indicator),
      roundsAccepted: before.roundsAccepted + (accepted ? 1 : 0),
      roundsRejected: before.roundsRejected + (rejected ? 1 : 0),
      reasons: [line, ...before.reasons].slice(0, REASONS_KEPT),
    };
  }
  return { version: 1, lastRound: round, peers };
}

function mix(average: number, indicator: number): number {
  return (1 - BMA_ALPHA) * average + BMA_ALPHA * indicator;
}

function placementsOf(
  state: GauntletState,
  round: number,
  results: readonly RoundResult[],
): Placement[] {
  const judged = results.filter(({ reason }) => indicatorOf(reason) !== undefined);
  const improvements = judged
    .filter(({ reason }) => reason === VerdictReason.ACCEPTED)
    .map(({ comparableImprovement }) => comparableImprovement)
    .sort((a, b) => b - a);
  return judged.map(({ hotkey, reason, comparableImprovement }) => {
    const { mu, sigma } = state.peers[hotkey] ?? newPeer(round);
    const accepted = reason === VerdictReason.ACCEPTED;
    const rank = accepted ? improvements.indexOf(comparableImprovement) : improvements.length;
    return { hotkey, rating: { mu, sigma }, rank: rank + 1 };
  });
}

/** A peer's score: what it is rated times how surely it trains. */
export type PeerScore = PeerRecord & { hotkey: string; finalScore: number; weightShare: number };

/**
 * Final score of a peer: ordinal (at least the floor) x moving average of the proof of training; 0 when the average is negative, or
 * below the threshold after the warm-up.
 */
export function finalScoreOf(peer: PeerRecord): number {
  const judged = peer.roundsAccepted + peer.roundsRejected;
  if (judged >= BMA_WARMUP_ROUNDS && peer.bma < BMA_THRESHOLD) return 0;
  return Math.max(ORDINAL_FLOOR, ordinalOf(peer)) * Math.max(0, peer.bma);
}

/** Scores and shares of all peers, best first. */
export function scorecard(
  state: GauntletState,
  rules: WeightRules = WEIGHT_RULES,
): { scores: PeerScore[]; weights: WeightShares } {
  const finals = new Map(
    Object.entries(state.peers).map(([hotkey, peer]) => [hotkey, finalScoreOf(peer)]),
  );
  const weights = computeWeights(finals, rules);
  const scores = Object.entries(state.peers).map(([hotkey, peer]) => ({
    ...peer,
    hotkey,
    finalScore: finals.get(hotkey)!,
    weightShare: weights.shares.get(hotkey) ?? 0,
  }));
  scores.sort((a, b) => b.finalScore - a.finalScore || (a.hotkey < b.hotkey ? -1 : 1));
  return { scores, weights };
}
