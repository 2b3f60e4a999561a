import { bytesEqual, canonicalBytes, sha256, toHex } from "@covenant/contracts";
import { type SamplingParameters, SamplingParametersSchema } from "@covenant/contracts/common";
import {
  type CompletionCommitment,
  ProofReason,
  type ProofStatement,
  ProofStatementSchema,
  type RolloutContract,
} from "@covenant/contracts/grail";
import { type Finding, refuse } from "./finding.ts";
import { completionTokensMax, promptTokensMax } from "./limits.ts";
import { environmentHash } from "./seeds.ts";

/** What a completion must claim, as the verifier derives it from contract and assignment. */
export interface ExpectedClaim {
  contract: RolloutContract;
  environmentSeed: bigint;
  /** The prompt of the episode in tokens, rendered by the verifier. */
  promptTokens: ArrayLike<number>;
  rolloutIndex: number;
}

/** The statement that follows from contract and assignment: what provers sign, verifiers expect. */
export function expectedStatement(claim: ExpectedClaim): Omit<ProofStatement, "$typeName"> {
  const { contract } = claim;
  return {
    contractId: contract.contractId,
    checkpointRoot: contract.checkpointRoot,
    environmentHash: environmentHash(contract.environment, claim.environmentSeed),
    sampling: contract.sampling,
    promptTokens: Array.from(claim.promptTokens),
    beaconBlock: contract.beaconBlock,
    beacon: contract.beacon,
    rolloutIndex: claim.rolloutIndex,
  };
}

/** Identity of a claim: two completions with the same one would be the same draw, counted twice. */
export function statementKey(statement: ProofStatement): string {
  return toHex(sha256(canonicalBytes(ProofStatementSchema, statement)));
}

/**
 * Bounds and shape of a commitment, before anything is computed from it: a token that the vocabulary
 * does not have must never reach the engine. Undefined if sound.
 */
export function checkShape(
  commitment: CompletionCommitment,
  vocabularySize: number,
): Finding | undefined {
  const { statement } = commitment;
  const malformed = (explanation: string) => refuse(ProofReason.MALFORMED, explanation);
  if (statement?.sampling === undefined) return malformed("The commitment has no statement.");
  if (statement.promptTokens.length === 0 || statement.promptTokens.length > promptTokensMax) {
    return malformed(`The prompt has ${statement.promptTokens.length} tokens.`);
  }
  const count = commitment.completionTokens.length;
  if (count === 0 || count > completionTokensMax) {
    return malformed(`The completion has ${count} tokens.`);
  }
  const unknown = [...statement.promptTokens, ...commitment.completionTokens].find(
    (token) => token >= vocabularySize,
  );
  if (unknown !== undefined) return malformed(`Token ${unknown} is outside the vocabulary.`);
  if (commitment.recordRoot.length !== 32) return malformed("The record root is not 32 bytes.");
  return undefined;
}

/** Whether the statement is the one that contract and assignment ask for; undefined if it is. */
export function checkStatement(
  statement: ProofStatement,
  claim: ExpectedClaim,
): Finding | undefined {
  const expected = expectedStatement(claim);
  if (statement.contractId !== expected.contractId) {
    return refuse(ProofReason.WRONG_CONTRACT, `It claims contract ${statement.contractId}.`);
  }
  if (!bytesEqual(statement.checkpointRoot, expected.checkpointRoot)) {
    const root = toHex(statement.checkpointRoot).slice(0, 16);
    return refuse(ProofReason.WRONG_CHECKPOINT, `It claims checkpoint ${root}.`);
  }
  if (!bytesEqual(statement.environmentHash, expected.environmentHash)) {
    return refuse(ProofReason.WRONG_PROMPT, "It claims another environment or episode.");
  }
  const differs =
    statement.promptTokens.length !== expected.promptTokens.length ||
    statement.promptTokens.some((token, i) => token !== expected.promptTokens[i]);
  if (differs) {
    return refuse(
      ProofReason.WRONG_PROMPT,
      "The prompt is not the one that the episode begins with.",
    );
  }
  if (!sameSampling(statement.sampling, expected.sampling)) {
    return refuse(ProofReason.WRONG_SAMPLING, "The sampling parameters are not the contract's.");
  }
  const beaconDiffers =
    statement.beaconBlock !== expected.beaconBlock ||
    !bytesEqual(statement.beacon, expected.beacon);
  if (beaconDiffers) {
    return refuse(ProofReason.WRONG_SAMPLING, "The beacon is not the contract's.");
  }
  if (statement.rolloutIndex !== expected.rolloutIndex) {
    return refuse(
      ProofReason.WRONG_SAMPLING,
      `It has rollout index ${statement.rolloutIndex}, not ${expected.rolloutIndex}.`,
    );
  }
  return undefined;
}

/**
 * How a completion may end: with its only stop token, or at exactly the longest allowed length.
 * Whether the stop was really drawn is for the replay to say; undefined if the form is right.
 */
export function checkTermination(
  tokens: readonly number[],
  sampling: SamplingParameters,
): Finding | undefined {
  const stops = new Set(sampling.stopTokenIds);
  const early = tokens.slice(0, -1).findIndex((token) => stops.has(token));
  if (early >= 0) {
    return refuse(
      ProofReason.TERMINATION,
      `The completion goes on after its stop token at position ${early}.`,
    );
  }
  if (tokens.length > sampling.maxNewTokens) {
    return refuse(
      ProofReason.TERMINATION,
      `The completion has ${tokens.length} tokens where ${sampling.maxNewTokens} are allowed.`,
    );
  }
  if (!stops.has(tokens.at(-1)!) && tokens.length < sampling.maxNewTokens) {
    return refuse(
      ProofReason.TERMINATION,
      `The completion breaks off after ${tokens.length} tokens without a stop token.`,
    );
  }
  return undefined;
}

function sameSampling(a?: SamplingParameters, b?: SamplingParameters): boolean {
  if (a === undefined || b === undefined) return false;
  return bytesEqual(
    canonicalBytes(SamplingParametersSchema, a),
    canonicalBytes(SamplingParametersSchema, b),
  );
}
