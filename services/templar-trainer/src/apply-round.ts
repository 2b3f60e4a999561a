import { bytesEqual, concatBytes, sha256, toHex } from "@covenant/contracts";
import type { RoundManifest, SignedManifest } from "@covenant/contracts/gauntlet";
import { PeerPhase } from "@covenant/contracts/templar";
import { aggregate, applyMerged, stateRoot } from "@covenant/kernels";
import { bodyOf } from "@covenant/runs";
import { CovenantError, fromUnknown, retry } from "@covenant/runtime";
import {
  CLIP_TO_MEDIAN_NORM,
  checkManifest,
  codecMode,
  manifestHash,
  parsePayload,
  ruleName,
  shortHex,
} from "@covenant/sparseloco";
import type { Peer } from "./peer.ts";
import { budget } from "./publish-update.ts";
import type { PendingUpdate, TrainerState } from "./trainer-state.ts";

/**
 * The state after a signed round: manifest checked, merged update fetched and checked, applied to a copy, root compared. Throws
 * COV_MANIFEST_REFUSED for a manifest without quorum or for another state, and COV_STATE_DIVERGED when the root differs; the given state is
 * untouched in either case. `pending` is the peer's own update of the round, if it made one.
 */
export async function stateAfter(
  peer: Peer,
  state: TrainerState,
  signed: SignedManifest,
  pending: PendingUpdate | undefined,
): Promise<TrainerState> {
  peer.status.update({ phase: PeerPhase.APPLYING, round: state.round, reason: "" });
  const manifest = await verified(peer, state, signed);
  const theta = state.theta.slice();
  if (manifest.contributors.length > 0) {
    const merged = await retry(() => fetchMerged(peer, manifest), budget(peer, "the validator"));
    if (peer.verifyMerge) await verifyMerge(peer, manifest);
    await applyMerged(theta, merged, peer.setup.tensors, manifest.outerLearningRate);
  }
  const root = await stateRoot(theta, peer.setup.tensors);
  if (!bytesEqual(root, manifest.postStateRoot)) {
    const [ours, theirs] = [toHex(root), toHex(manifest.postStateRoot)];
    throw new CovenantError("COV_STATE_DIVERGED", `round ${state.round} leads to another state`, {
      metadata: { round: String(state.round), ours, theirs },
    });
  }
  // After a null round nothing was sent on, so the error feedback of the round's start still holds.
  const kept = manifest.contributors.length > 0 ? pending : undefined;
  return {
    round: state.round + 1,
    stateRoot: root,
    previousManifestSha256: manifestHash(manifest),
    theta,
    firstMoment: pending?.firstMoment ?? state.firstMoment,
    secondMoment: pending?.secondMoment ?? state.secondMoment,
    optimizerStepCount: pending?.optimizerStepCount ?? state.optimizerStepCount,
    errorFeedback: kept?.errorFeedback ?? state.errorFeedback,
  };
}

async function verified(
  peer: Peer,
  state: TrainerState,
  signed: SignedManifest,
): Promise<RoundManifest> {
  await retry(() => peer.validators.refresh(), budget(peer, "the ledger"));
  const checked = checkManifest(signed, {
    runId: peer.setup.run.runId,
    round: state.round,
    baseRoot: state.stateRoot,
    validators: peer.validators.stake,
    previousManifestSha256: state.previousManifestSha256,
  });
  if (checked.ok) return checked.value;
  const { code, detail } = checked.problem;
  throw new CovenantError("COV_MANIFEST_REFUSED", `manifest of round ${state.round}: ${detail}`, {
    metadata: { problem: code, round: String(state.round) },
  });
}

/** Streams the merged update and checks size and hash against the manifest. */
async function fetchMerged(peer: Peer, manifest: RoundManifest): Promise<Uint8Array> {
  const { round } = manifest;
  const limit = Number(manifest.mergedBytes);
  const parts: Uint8Array[] = [];
  let received = 0;
  const stream = peer.validators.leader.getMergedUpdate({ round }, { signal: peer.signal });
  for await (const { data } of stream) {
    received += data.length;
    if (received > limit) break;
    parts.push(data);
  }
  const merged = concatBytes(...parts);
  if (received !== limit || !bytesEqual(sha256(merged), manifest.mergedSha256)) {
    throw new CovenantError(
      "COV_MERGED_MISMATCH",
      `merged update of round ${round}: ${received} of ${limit} bytes, or another hash`,
      { metadata: { round: String(round) } },
    );
  }
  return merged;
}

/** Computes the merged update again from the contributors' payloads; a difference is reported and refused. */
async function verifyMerge(peer: Peer, manifest: RoundManifest): Promise<void> {
  const outer = peer.setup.run.outer!;
  const bodies: Uint8Array[] = [];
  for (const contributor of manifest.contributors) {
    try {
      bodies.push(await contributorBody(peer, contributor));
    } catch (caught) {
      const { code, message } = fromUnknown(caught);
      const { hotkey } = contributor;
      peer.logger.warn({ code, hotkey }, `merge cannot be verified: ${message}`);
      return;
    }
  }
  const merged = await aggregate({
    updates: bodies,
    weights: Float32Array.from(manifest.contributors, ({ weight }) => weight),
    tensors: peer.setup.tensors,
    rule: ruleName(manifest.rule),
    clipToMedianNorm: CLIP_TO_MEDIAN_NORM,
    keepPerChunk: outer.keepPerChunk,
    mode: codecMode(outer.codec),
  });
  if (bytesEqual(sha256(merged), manifest.mergedSha256)) {
    peer.logger.debug({ round: manifest.round }, "merged update verified from its parts");
    return;
  }
  const metadata = { round: String(manifest.round), ours: shortHex(sha256(merged)) };
  throw new CovenantError(
    "COV_MANIFEST_REFUSED",
    `merged update of round ${manifest.round} is not what its contributors add up to`,
    { metadata },
  );
}

async function contributorBody(
  peer: Peer,
  contributor: { bucket: string; key: string; payloadSha256: Uint8Array },
): Promise<Uint8Array> {
  const { bucket, key, payloadSha256 } = contributor;
  const maxBytes = peer.setup.payloadBytesMax;
  const payload = await peer.objects.get(bucket, key, { maxBytes });
  if (!bytesEqual(sha256(payload), payloadSha256)) throw new Error(`${bucket}/${key} has changed`);
  const parsed = parsePayload(payload, maxBytes);
  if (!parsed.ok) throw new Error(`${bucket}/${key}: ${parsed.problem.detail}`);
  return bodyOf(peer.setup, parsed.value.body);
}
