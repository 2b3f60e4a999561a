import { create } from "@bufbuild/protobuf";
import { bytesEqual, type Hotkey, signMessage, toHex, verifyMessage } from "@covenant/contracts";
import type { SamplingParameters } from "@covenant/contracts/common";
import {
  ProofReason,
  ProofStatementSchema,
  type Receipt,
  ReceiptSchema,
} from "@covenant/contracts/grail";
import { challengePositions } from "./challenge.ts";
import { checkShape, checkTermination } from "./check-commitment.ts";
import { checkOpenings } from "./check-openings.ts";
import { defaultFingerprintDims, samplingFault } from "./contract.ts";
import { type Finding, refuse } from "./finding.ts";
import { judgeReplay, type ReplayResult } from "./judge-replay.ts";
import {
  commitCompletion,
  type GeneratedCompletion,
  openRecords,
  tokenRecords,
} from "./records.ts";
import { domainHash, fingerprintSeed } from "./seeds.ts";
import type { ProofThresholds } from "./thresholds.ts";
import { type ReplayRequest, replayRequest } from "./verify-completion.ts";

/** Positions that a receipt opens, or all if the completion is shorter. */
export const receiptPositions = 32;

/** What a receipt is made of. The engine must have drawn with `samplingSeed` of these. */
export interface ReceiptTerms {
  /** Id of the request; lets a customer match receipt and answer. */
  requestId: string;
  checkpointRoot: Uint8Array;
  sampling: SamplingParameters;
  promptTokens: ArrayLike<number>;
  beaconBlock: number;
  beacon: Uint8Array;
  /** 0 for the first choice of a request, 1 for the second, and so on. */
  rolloutIndex: number;
  /** Run and model name for people. */
  model: string;
  issuedAtMs: number;
}

/**
 * Positions a receipt opens. Nobody challenges a receipt, so the key comes from the commitment: to
 * choose its positions a prover would have to find a root that selects them.
 */
function positionsOf(recordRoot: Uint8Array, rolloutIndex: number, count: number): number[] {
  const randomness = domainHash("covenant.receipt.v1", recordRoot);
  return challengePositions({
    randomness,
    recordRoot,
    rolloutIndex,
    count,
    open: receiptPositions,
  });
}

/** A signed receipt for a completion, with fingerprints of `defaultFingerprintDims` values. */
export function buildReceipt(
  terms: ReceiptTerms,
  completion: GeneratedCompletion,
  hotkey: Hotkey,
): Receipt {
  const records = tokenRecords(completion, defaultFingerprintDims);
  const statement = create(ProofStatementSchema, {
    contractId: terms.requestId,
    checkpointRoot: terms.checkpointRoot,
    sampling: terms.sampling,
    promptTokens: Array.from(terms.promptTokens),
    beaconBlock: BigInt(terms.beaconBlock),
    beacon: terms.beacon,
    rolloutIndex: terms.rolloutIndex,
  });
  const commitment = commitCompletion(statement, records);
  const positions = positionsOf(commitment.recordRoot, terms.rolloutIndex, records.length);
  const receipt = create(ReceiptSchema, {
    commitment,
    openings: openRecords(records, positions),
    model: terms.model,
    issuedAtMs: BigInt(terms.issuedAtMs),
  });
  receipt.signature = signMessage(ReceiptSchema, receipt, hotkey);
  return receipt;
}

/** What a verifier of receipts brings along. */
export interface ReceiptContext {
  /** Root of the checkpoint whose weights the verifier holds; from a signed manifest, not the receipt. */
  checkpointRoot: Uint8Array;
  /** The replica that should have signed; any hotkey if left out. */
  hotkey?: string;
  /** Randomness of the receipt's beacon block from the ledger; not compared if left out. */
  beacon?: Uint8Array;
  vocabularySize: number;
  thresholds: ProofThresholds;
}

/** Replays one request with fingerprints under the given key. */
export type Replay = (
  request: ReplayRequest,
  fingerprint: { seed: Uint8Array; dims: number },
) => Promise<ReplayResult>;

/** What can be said about a receipt without the model; undefined if nothing is wrong so far. */
export function checkReceipt(receipt: Receipt, context: ReceiptContext): Finding | undefined {
  const { commitment, signature } = receipt;
  const expected = context.hotkey ?? signature?.hotkey;
  const signed = signature !== undefined && signature.hotkey === expected;
  if (!signed || !verifyMessage(ReceiptSchema, receipt)) {
    return refuse(
      ProofReason.BAD_SIGNATURE,
      "The signature is not the replica's over this receipt.",
    );
  }
  if (commitment === undefined) {
    return refuse(ProofReason.MALFORMED, "The receipt has no commitment.");
  }
  const shape = checkShape(commitment, context.vocabularySize);
  if (shape !== undefined) return shape;
  const statement = commitment.statement!;
  if (!bytesEqual(statement.checkpointRoot, context.checkpointRoot)) {
    const root = toHex(statement.checkpointRoot);
    return refuse(ProofReason.WRONG_CHECKPOINT, `The receipt is for checkpoint ${root}.`);
  }
  const beaconDiffers = context.beacon && !bytesEqual(statement.beacon, context.beacon);
  if (statement.beacon.length !== 32 || beaconDiffers) {
    return refuse(ProofReason.WRONG_SAMPLING, "The beacon is not the ledger's for that block.");
  }
  const fault = samplingFault(statement.sampling!);
  if (fault !== undefined) return refuse(ProofReason.MALFORMED, fault);
  const tokens = commitment.completionTokens;
  return (
    checkTermination(tokens, statement.sampling!) ??
    checkOpenings(
      commitment,
      receipt.openings,
      positionsOf(commitment.recordRoot, statement.rolloutIndex, tokens.length),
      defaultFingerprintDims,
    )
  );
}

/** The verdict on a receipt; `replay` runs the checkpoint that `context.checkpointRoot` names. */
export async function verifyReceipt(
  receipt: Receipt,
  context: ReceiptContext,
  replay: Replay,
): Promise<Finding> {
  const early = checkReceipt(receipt, context);
  if (early !== undefined) return early;
  const commitment = receipt.commitment!;
  const { beacon, checkpointRoot } = commitment.statement!;
  const result = await replay(replayRequest(commitment), {
    seed: fingerprintSeed(beacon, checkpointRoot),
    dims: defaultFingerprintDims,
  });
  return judgeReplay(commitment, receipt.openings, result, context.thresholds);
}
