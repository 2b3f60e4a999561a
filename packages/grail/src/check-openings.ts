import { verifyMerklePath } from "@covenant/contracts";
import { type CompletionCommitment, type Opening, ProofReason } from "@covenant/contracts/grail";
import { type Finding, refuse } from "./finding.ts";
import { merklePathMax } from "./limits.ts";
import { recordLeaf } from "./records.ts";

/**
 * Whether the openings are exactly those that were asked for and lie under the committed root;
 * undefined if they do. A record must also carry the token that the commitment shows: there is one
 * token sequence, and reward, proof and training all read it.
 */
export function checkOpenings(
  commitment: CompletionCommitment,
  openings: readonly Opening[],
  positions: readonly number[],
  fingerprintDims: number,
): Finding | undefined {
  const mismatch = (explanation: string) => refuse(ProofReason.OPENING_MISMATCH, explanation);
  const tokens = commitment.completionTokens;
  if (openings.length !== positions.length) {
    return mismatch(`${openings.length} positions are opened, ${positions.length} were asked for.`);
  }
  for (const [i, position] of positions.entries()) {
    const { record, merklePath } = openings[i]!;
    if (record === undefined || record.position !== position) {
      return mismatch(`Opening ${i} is not position ${position}, which was asked for.`);
    }
    if (record.token !== tokens[position]) {
      return mismatch(`The record at ${position} holds another token than the completion.`);
    }
    if (record.fingerprint.length !== fingerprintDims) {
      return refuse(
        ProofReason.MALFORMED,
        `The fingerprint at ${position} has ${record.fingerprint.length} values.`,
      );
    }
    if (!Number.isFinite(record.logProb) || record.logProb > 0) {
      return refuse(ProofReason.MALFORMED, `The log-probability at ${position} is impossible.`);
    }
    const proven =
      merklePath.length <= merklePathMax &&
      verifyMerklePath(
        commitment.recordRoot,
        recordLeaf(record),
        position,
        tokens.length,
        merklePath,
      );
    if (!proven) return mismatch(`The record at ${position} is not under the committed root.`);
  }
  return undefined;
}
