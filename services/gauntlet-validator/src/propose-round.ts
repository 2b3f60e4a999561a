import { create } from "@bufbuild/protobuf";
import { sha256 } from "@covenant/contracts";
import {
  ContributorSchema,
  type RoundManifest,
  RoundManifestSchema,
} from "@covenant/contracts/gauntlet";
import { aggregate, applyMerged, stateRoot } from "@covenant/kernels";
import type { RunSetup } from "@covenant/runs";
import { CLIP_TO_MEDIAN_NORM, codecMode, type RoundRecord, ruleName } from "@covenant/sparseloco";
import type { SoundUpdate } from "./fetch-updates.ts";

/** A round's outcome before anybody signed it. */
export type Proposal = {
  manifest: RoundManifest;
  merged: Uint8Array;
  /** Parameters after the round. */
  parameters: Float32Array;
};

/** What a proposal is made of. */
export type ProposalInput = {
  record: RoundRecord;
  baseRoot: Uint8Array;
  parameters: Float32Array;
  accepted: readonly SoundUpdate[];
  /** Why nobody contributes, if so. */
  nullReason: string;
  previousManifestSha256: Uint8Array;
};

/** Merges the accepted updates, applies the result to a copy, and writes the manifest that says so. */
export async function proposeRound(setup: RunSetup, input: ProposalInput): Promise<Proposal> {
  const { accepted, record, baseRoot } = input;
  const outer = setup.run.outer!;
  const parameters = input.parameters.slice();
  let merged = new Uint8Array();
  if (accepted.length > 0) {
    const weights = new Float32Array(accepted.length).fill(1);
    merged = new Uint8Array(await merge(setup, accepted, weights));
    await applyMerged(parameters, merged, setup.tensors, outer.learningRate);
  }
  const isNull = accepted.length === 0;
  const manifest = create(RoundManifestSchema, {
    runId: setup.run.runId,
    round: record.round,
    baseRoot,
    contributors: accepted.map(contributorOf),
    rule: outer.rule,
    outerLearningRate: outer.learningRate,
    postStateRoot: isNull ? baseRoot : await stateRoot(parameters, setup.tensors),
    openBlock: BigInt(record.openBlock),
    closeBlock: BigInt(record.closeBlock),
    mergedSha256: isNull ? new Uint8Array() : sha256(merged),
    mergedBytes: BigInt(merged.length),
    nullReason: isNull ? input.nullReason : "",
    previousManifestSha256: input.previousManifestSha256,
  });
  return { manifest, merged, parameters };
}

function contributorOf({ announcement }: SoundUpdate) {
  const { announced, request } = announcement;
  const { bucket, key, payloadSha256, payloadBytes } = request;
  const weight = 1;
  const { hotkey } = announced;
  return create(ContributorSchema, { hotkey, bucket, key, payloadSha256, payloadBytes, weight });
}

/** The merged update of bodies in the given order: the order is part of the arithmetic. */
export function merge(
  setup: RunSetup,
  updates: readonly { body: Uint8Array }[],
  weights: Float32Array,
): Promise<Uint8Array> {
  const outer = setup.run.outer!;
  return aggregate({
    updates: updates.map(({ body }) => body),
    weights,
    tensors: setup.tensors,
    rule: ruleName(outer.rule),
    clipToMedianNorm: CLIP_TO_MEDIAN_NORM,
    keepPerChunk: outer.keepPerChunk,
    mode: codecMode(outer.codec),
  });
}
