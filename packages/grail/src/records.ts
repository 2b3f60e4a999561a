import { create } from "@bufbuild/protobuf";
import { canonicalBytes, merklePath, merkleRoot } from "@covenant/contracts";
import {
  type CompletionCommitment,
  CompletionCommitmentSchema,
  type CompletionOpenings,
  CompletionOpeningsSchema,
  type Opening,
  OpeningSchema,
  type ProofStatement,
  type TokenRecord,
  TokenRecordSchema,
} from "@covenant/contracts/grail";
import { challengePositions } from "./challenge.ts";

/** What the engine reports for one completion. */
export interface GeneratedCompletion {
  /** Including the stop token, if one was drawn. */
  tokens: ArrayLike<number>;
  /** Before temperature. */
  logProbs: ArrayLike<number>;
  /** tokens x dims. */
  fingerprints: Int8Array;
}

/** One record for each token. Throws a RangeError if the arrays do not fit each other. */
export function tokenRecords(completion: GeneratedCompletion, dims: number): TokenRecord[] {
  const count = completion.tokens.length;
  if (completion.logProbs.length !== count || completion.fingerprints.length !== count * dims) {
    throw new RangeError("A completion needs a log-probability and a fingerprint for every token.");
  }
  return Array.from({ length: count }, (_, position) =>
    create(TokenRecordSchema, {
      position,
      token: completion.tokens[position]!,
      logProb: Math.fround(completion.logProbs[position]!),
      fingerprint: Uint8Array.from(
        completion.fingerprints.subarray(position * dims, (position + 1) * dims),
        (value) => value & 0xff,
      ),
    }),
  );
}

/** The bytes of a record that the Merkle tree hashes. */
export function recordLeaf(record: TokenRecord): Uint8Array {
  return canonicalBytes(TokenRecordSchema, record);
}

/** Binds a completion to its statement: to be sent before the challenge exists. */
export function commitCompletion(
  statement: ProofStatement,
  records: readonly TokenRecord[],
): CompletionCommitment {
  return create(CompletionCommitmentSchema, {
    statement,
    completionTokens: records.map((record) => record.token),
    recordRoot: merkleRoot(records.map(recordLeaf)),
  });
}

/** Opens records at positions, each with its path. */
export function openRecords(
  records: readonly TokenRecord[],
  positions: readonly number[],
): Opening[] {
  const leaves = records.map(recordLeaf);
  return positions.map((position) =>
    create(OpeningSchema, {
      record: records[position]!,
      merklePath: merklePath(leaves, position),
    }),
  );
}

/** Answers the challenge for one completion. */
export function openCompletion(
  commitment: CompletionCommitment,
  records: readonly TokenRecord[],
  challengeRandomness: Uint8Array,
): CompletionOpenings {
  const rolloutIndex = commitment.statement!.rolloutIndex;
  const positions = challengePositions({
    randomness: challengeRandomness,
    recordRoot: commitment.recordRoot,
    rolloutIndex,
    count: records.length,
  });
  return create(CompletionOpeningsSchema, {
    rolloutIndex,
    openings: openRecords(records, positions),
  });
}
