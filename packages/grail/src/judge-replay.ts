import { create } from "@bufbuild/protobuf";
import {
  type CompletionCommitment,
  type Opening,
  type ProofMeasurements,
  ProofMeasurementsSchema,
  ProofReason,
} from "@covenant/contracts/grail";
import type { Finding } from "./finding.ts";
import type { ProofThresholds } from "./thresholds.ts";

/** What one prefill of prompt and completion through the claimed checkpoint says. */
export interface ReplayResult {
  /** Token that the bound sampler draws at each position, given the claimed tokens before it. */
  drawn: ArrayLike<number>;
  /**
   * Distance of the bound uniform number from the nearest edge of the claimed token's interval. Where
   * it lies outside the interval: 0 or the distance, negative.
   */
  margin: ArrayLike<number>;
  /** Of the claimed tokens, before temperature. */
  logProbs: ArrayLike<number>;
  /** Positions x dims. */
  fingerprints: Int8Array;
}

/** Counts of one replay; `stopOnly` says that all disagreements are about ending or going on. */
interface Agreement {
  agree: number;
  total: number;
  nearTies: number;
  disagreements: number[];
  stopOnly: boolean;
}

function compareDraws(
  tokens: readonly number[],
  stops: ReadonlySet<number>,
  replay: ReplayResult,
  nearTieMargin: number,
): Agreement {
  const result: Agreement = { agree: 0, total: 0, nearTies: 0, disagreements: [], stopOnly: true };
  tokens.forEach((token, position) => {
    const drawn = replay.drawn[position]!;
    const margin = replay.margin[position]!;
    // An engine that reports no distance outside the interval says 0 there: never a near tie.
    const isNear = drawn === token ? margin < nearTieMargin : margin < 0 && -margin < nearTieMargin;
    if (isNear) {
      result.nearTies++;
      return;
    }
    result.total++;
    if (drawn === token) {
      result.agree++;
      return;
    }
    result.disagreements.push(position);
    if (!stops.has(token) && !stops.has(drawn)) result.stopOnly = false;
  });
  return result;
}

function compareRecords(openings: readonly Opening[], replay: ReplayResult) {
  let squares = 0;
  let values = 0;
  let drift = 0;
  for (const { record } of openings) {
    const { position, fingerprint, logProb } = record!;
    drift = Math.max(drift, Math.abs(logProb - replay.logProbs[position]!));
    fingerprint.forEach((byte, dim) => {
      const claimed = (byte << 24) >> 24;
      squares += (claimed - replay.fingerprints[position * fingerprint.length + dim]!) ** 2;
      values++;
    });
  }
  return { distance: values === 0 ? 0 : Math.sqrt(squares / values), drift };
}

/**
 * Compares a completion with its replay. Sampling comes first: it alone says that the tokens were
 * drawn and not written; the fingerprint then says from which weights, the drift in which precision.
 */
export function judgeReplay(
  commitment: CompletionCommitment,
  openings: readonly Opening[],
  replay: ReplayResult,
  thresholds: ProofThresholds,
): Finding {
  const tokens = commitment.completionTokens;
  const stops = new Set(commitment.statement!.sampling!.stopTokenIds);
  const draws = compareDraws(tokens, stops, replay, thresholds.nearTieMargin);
  const { distance, drift } = compareRecords(openings, replay);
  const measurements = create(ProofMeasurementsSchema, {
    sampledAgree: draws.agree,
    sampledTotal: draws.total,
    nearTies: draws.nearTies,
    fingerprintDistance: distance,
    logProbDrift: drift,
  });
  return { ...decide(draws, distance, drift, thresholds), measurements };
}

function decide(
  draws: Agreement,
  distance: number,
  drift: number,
  thresholds: ProofThresholds,
): Omit<Finding, "measurements"> {
  const allowed = Math.floor((1 - thresholds.minimumAgreement) * draws.total + 1e-9);
  const wrong = draws.disagreements.length;
  if (wrong > allowed && draws.stopOnly) {
    return {
      reason: ProofReason.TERMINATION,
      explanation: `The bound sampler ends the completion elsewhere (position ${draws.disagreements[0]}).`,
    };
  }
  if (wrong > allowed) {
    return {
      reason: ProofReason.SAMPLING_MISMATCH,
      explanation: `${wrong} of ${draws.total} tokens are not what the bound sampler draws from the claimed checkpoint.`,
    };
  }
  // Written as "not within", so that a NaN from a broken replay is a refusal.
  if (!(distance <= thresholds.fingerprintDistanceMax)) {
    return {
      reason: ProofReason.FINGERPRINT_MISMATCH,
      explanation: `The fingerprints differ by ${distance.toFixed(2)} steps, ${thresholds.fingerprintDistanceMax} are allowed.`,
    };
  }
  if (!(drift <= thresholds.logProbDriftMax)) {
    return {
      reason: ProofReason.LOG_PROB_DRIFT,
      explanation: `A log-probability differs by ${drift.toFixed(4)}, ${thresholds.logProbDriftMax} is allowed.`,
    };
  }
  return {
    reason: ProofReason.VERIFIED,
    explanation: `${draws.agree} of ${draws.total} draws agree.`,
  };
}

/** Measurements of several completions as one: sums of counts, worst distances. */
export function combineMeasurements(all: readonly ProofMeasurements[]): ProofMeasurements {
  return create(ProofMeasurementsSchema, {
    sampledAgree: all.reduce((sum, one) => sum + one.sampledAgree, 0),
    sampledTotal: all.reduce((sum, one) => sum + one.sampledTotal, 0),
    nearTies: all.reduce((sum, one) => sum + one.nearTies, 0),
    fingerprintDistance: Math.max(0, ...all.map((one) => one.fingerprintDistance)),
    logProbDrift: Math.max(0, ...all.map((one) => one.logProbDrift)),
  });
}
