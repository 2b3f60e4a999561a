import { create } from "@bufbuild/protobuf";
import { bytesEqual, sha256 } from "@covenant/contracts";
import { AnnounceUpdateRequestSchema, type RoundManifest } from "@covenant/contracts/gauntlet";
import { findCopies } from "@covenant/gauntlet";
import { applyMerged, stateRoot } from "@covenant/kernels";
import { CovenantError } from "@covenant/runtime";
import { commitmentMatches } from "@covenant/sparseloco";
import { fetchUpdate, type SoundUpdate } from "./fetch-updates.ts";
import type { Judge } from "./judge.ts";
import type { Outcome } from "./outcome.ts";
import { merge } from "./propose-round.ts";
import type { Tip } from "./tip.ts";

/**
 * Works out a manifest again from the payloads it names: every cheap check, copies among its contributors, merge, post-state root. Throws
 * COV_MANIFEST_REFUSED where it comes to another result.
 */
export async function verifiedOutcome(
  judge: Judge,
  tip: Tip,
  manifest: RoundManifest,
): Promise<Outcome> {
  const { setup } = judge;
  const { contributors } = manifest;
  const parameters = tip.parameters.slice();
  if (contributors.length === 0) {
    const same = bytesEqual(manifest.postStateRoot, manifest.baseRoot);
    if (!same || manifest.nullReason === "") throw refused("a null round changes nothing");
    return { merged: new Uint8Array(), parameters };
  }
  const updates = await soundUpdates(judge, manifest);
  const copies = findCopies(
    updates.map(({ fingerprint }) => fingerprint),
    manifest.round,
  );
  const copy = [...copies].find(([, finding]) => finding.copy);
  if (copy !== undefined) throw refused(`${copy[0]} has copied ${copy[1].overlapWith}`);
  const weights = Float32Array.from(contributors, ({ weight }) => weight);
  const merged = await merge(setup, updates, weights);
  if (!bytesEqual(sha256(merged), manifest.mergedSha256)) throw refused("the merge differs");
  await applyMerged(parameters, merged, setup.tensors, manifest.outerLearningRate);
  const root = await stateRoot(parameters, setup.tensors);
  if (!bytesEqual(root, manifest.postStateRoot)) throw refused("it leads to another state");
  return { merged, parameters };
}

/** The contributors' updates, each past every cheap check of this validator's own. */
async function soundUpdates(judge: Judge, manifest: RoundManifest): Promise<SoundUpdate[]> {
  const { setup, objects, participants, clock, signal, config, ledger } = judge;
  const { fetchBudgetMs } = config;
  const modules = { setup, objects, participants, clock, fetchBudgetMs };
  const updates: SoundUpdate[] = [];
  for (const { hotkey, bucket, key, payloadSha256, payloadBytes } of manifest.contributors) {
    const commitment = await ledger.commitment(config.ledger.netuid, hotkey);
    const fields = commitment?.fields ?? [];
    if (!commitment || !commitmentMatches(fields, bucket, manifest.round, payloadSha256)) {
      throw refused(`${hotkey} has not committed to its update`);
    }
    const { block: committedBlock, index: committedIndex } = commitment;
    const request = create(AnnounceUpdateRequestSchema, {
      bucket,
      key,
      payloadSha256,
      payloadBytes,
    });
    const announcement = { announced: { hotkey, committedBlock, committedIndex }, request };
    const { round, baseRoot } = manifest;
    const fetched = await fetchUpdate(modules, round, baseRoot, announcement, signal);
    if ("reason" in fetched) throw refused(`update of ${hotkey}: ${fetched.explanation}`);
    updates.push(fetched);
  }
  return updates;
}

/** A signature that is not given, and why. */
export function refused(why: string): CovenantError {
  return new CovenantError("COV_MANIFEST_REFUSED", `not signed: ${why}`);
}
