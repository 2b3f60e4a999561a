import type { CompletionCommitment, Opening } from "@covenant/contracts/grail";
import { challengePositions } from "./challenge.ts";
import {
  checkShape,
  checkStatement,
  checkTermination,
  type ExpectedClaim,
} from "./check-commitment.ts";
import { checkOpenings } from "./check-openings.ts";
import type { Finding } from "./finding.ts";
import { judgeReplay, type ReplayResult } from "./judge-replay.ts";
import { samplingSeed } from "./seeds.ts";
import type { ProofThresholds } from "./thresholds.ts";

/** One completion with all that is needed to check it short of the model. */
export interface CompletionEvidence {
  claim: ExpectedClaim;
  commitment: CompletionCommitment;
  openings: readonly Opening[];
  /** Randomness of the challenge block. */
  challengeRandomness: Uint8Array;
}

/** What the engine is asked to replay. */
export interface ReplayRequest {
  prompt: Int32Array;
  completion: Int32Array;
  temperature: number;
  topK: number;
  topP: number;
  samplingSeed: Uint8Array;
}

/** Replay of a commitment whose shape is sound. */
export function replayRequest(commitment: CompletionCommitment): ReplayRequest {
  const statement = commitment.statement!;
  const sampling = statement.sampling!;
  return {
    prompt: Int32Array.from(statement.promptTokens),
    completion: Int32Array.from(commitment.completionTokens),
    temperature: sampling.temperature,
    topK: sampling.topK,
    topP: sampling.topP,
    samplingSeed: samplingSeed(statement),
  };
}

/**
 * Everything that is checked without the model, cheapest first: shape, statement, termination,
 * openings. Undefined if all hold. Tokens at or beyond `vocabularySize` are malformed.
 */
export function checkBeforeReplay(
  evidence: CompletionEvidence,
  vocabularySize: number,
): Finding | undefined {
  const { commitment, claim } = evidence;
  const early =
    checkShape(commitment, vocabularySize) ??
    checkStatement(commitment.statement!, claim) ??
    checkTermination(commitment.completionTokens, claim.contract.sampling!);
  if (early !== undefined) return early;
  const positions = challengePositions({
    randomness: evidence.challengeRandomness,
    recordRoot: commitment.recordRoot,
    rolloutIndex: claim.rolloutIndex,
    count: commitment.completionTokens.length,
  });
  return checkOpenings(commitment, evidence.openings, positions, claim.contract.fingerprintDims);
}

/**
 * The whole verdict on one completion: what can be checked without the model, then the replay. The
 * signature covers the group's message and is checked by `verifyGroup`.
 */
export function verifyCompletion(
  evidence: CompletionEvidence,
  replay: ReplayResult,
  options: { thresholds: ProofThresholds; vocabularySize: number },
): Finding {
  const early = checkBeforeReplay(evidence, options.vocabularySize);
  if (early !== undefined) return early;
  return judgeReplay(evidence.commitment, evidence.openings, replay, options.thresholds);
}
