import { create } from "@bufbuild/protobuf";
import { bytesEqual, type Hotkey, signMessage, toHex, verifyMessage } from "@covenant/contracts";
import {
  AggregationRule,
  type RunConfig,
  type SparseUpdate,
  SparseUpdateSchema,
} from "@covenant/contracts/templar";
import { sampleCommitment } from "./assignment.ts";
import { bodyHashes } from "./framing.ts";
import { type Problem, type ProblemCode, refused } from "./result.ts";

/** Everything a header must agree with: known to the peer that writes it and to the validator that checks it. */
export type HeaderExpectation = {
  run: RunConfig;
  round: number;
  /** State root the update must start from. */
  baseRoot: Uint8Array;
  tensorTableRoot: Uint8Array;
  /** The peer's assigned samples of the round, in order. */
  samples: Uint32Array;
};

/** Builds and signs the header of an update. */
export function buildHeader(
  expected: HeaderExpectation,
  body: Uint8Array,
  hotkey: Hotkey,
): SparseUpdate {
  const { run } = expected;
  const header = create(SparseUpdateSchema, {
    runId: run.runId,
    round: expected.round,
    baseRoot: expected.baseRoot,
    tensorTableRoot: expected.tensorTableRoot,
    codec: run.outer?.codec ?? "",
    rule: run.outer?.rule ?? AggregationRule.UNSPECIFIED,
    innerSteps: run.inner?.steps ?? 0,
    tokenCount: tokensOf(expected),
    sampleCommitment: sampleCommitment(expected.samples),
    bodySha256: bodyHashes(body),
    bodyBytes: BigInt(body.length),
  });
  header.signature = signMessage(SparseUpdateSchema, header, hotkey);
  return header;
}

function tokensOf(expected: HeaderExpectation): bigint {
  return BigInt(expected.samples.length) * BigInt(expected.run.data?.sequenceLength ?? 0);
}

/**
 * Checks a header against what its round demands, cheapest first; undefined when everything holds. The signature must be
 * by `hotkey`. Says nothing about the body: see parsePayload and the kernels' decoder.
 */
export function checkHeader(
  header: SparseUpdate,
  expected: HeaderExpectation,
  hotkey: string,
): Problem | undefined {
  const problem = (code: ProblemCode, detail: string) => refused(code, detail).problem;
  const { run } = expected;
  if (header.signature?.hotkey !== hotkey) {
    return problem("BAD_SIGNATURE", `header is signed by ${header.signature?.hotkey ?? "nobody"}`);
  }
  if (header.runId !== run.runId) return problem("WRONG_RUN", `header is for run ${header.runId}`);
  if (header.round !== expected.round) {
    return problem("WRONG_ROUND", `header is for round ${header.round}, not ${expected.round}`);
  }
  if (header.codec !== run.outer?.codec) return problem("WRONG_CODEC", `codec ${header.codec}`);
  if (header.rule !== run.outer.rule) return problem("WRONG_RULE", `rule ${header.rule}`);
  if (!bytesEqual(header.tensorTableRoot, expected.tensorTableRoot)) {
    return problem("WRONG_TABLE", `tensor table ${shortHex(header.tensorTableRoot)}`);
  }
  if (!bytesEqual(header.baseRoot, expected.baseRoot)) {
    const [got, want] = [shortHex(header.baseRoot), shortHex(expected.baseRoot)];
    return problem("WRONG_BASE", `starts from state ${got}, the round starts from ${want}`);
  }
  if (header.innerSteps !== run.inner?.steps || header.tokenCount !== tokensOf(expected)) {
    return problem("WRONG_WORK", `${header.innerSteps} steps and ${header.tokenCount} tokens`);
  }
  if (!bytesEqual(header.sampleCommitment, sampleCommitment(expected.samples))) {
    return problem("WRONG_SAMPLES", "sample commitment differs from the round's assignment");
  }
  if (!verifyMessage(SparseUpdateSchema, header)) {
    return problem("BAD_SIGNATURE", "signature does not verify");
  }
  return undefined;
}

/** First eight hex digits: enough to recognise a root in a sentence. */
export function shortHex(bytes: Uint8Array): string {
  return toHex(bytes.subarray(0, 4));
}
