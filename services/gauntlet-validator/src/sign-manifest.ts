import { create } from "@bufbuild/protobuf";
import { bytesEqual, sha256 } from "@covenant/contracts";
import type {
  RoundManifest,
  SignManifestRequest,
  SignManifestResponse,
} from "@covenant/contracts/gauntlet";
import {
  AnnounceUpdateRequestSchema,
  SignedManifestSchema,
  SignManifestResponseSchema,
} from "@covenant/contracts/gauntlet";
import { findCopies } from "@covenant/gauntlet";
import { applyMerged, stateRoot } from "@covenant/kernels";
import { CovenantError } from "@covenant/runtime";
import {
  commitmentMatches,
  isQuorum,
  signedStake,
  signManifest,
  verifyManifestSignature,
} from "@covenant/sparseloco";
import { fetchUpdate, type SoundUpdate } from "./fetch-updates.ts";
import type { Judge } from "./judge.ts";
import type { Outcome } from "./outcome.ts";
import { merge } from "./propose-round.ts";
import type { RoundLoop } from "./round-loop.ts";
import type { Tip } from "./tip.ts";

/**
 * Signs another validator's manifest if it follows from this validator's own state: same base and history, payloads as named, merged update
 * and post-state root recomputed bit for bit. Signs at most one manifest per round. Throws COV_MANIFEST_REFUSED otherwise.
 */
export async function signForeignManifest(
  judge: Judge,
  loop: RoundLoop,
  request: SignManifestRequest,
): Promise<SignManifestResponse> {
  const { manifest, proposer } = request;
  if (manifest === undefined || proposer === undefined) throw refused("the request is empty");
  await judge.participants.refresh();
  const stake = judge.participants.validatorStake;
  if (!stake.has(proposer.hotkey)) throw refused("the proposer is no validator of this subnet");
  if (!verifyManifestSignature(manifest, proposer)) throw refused("the proposal is not signed");
  checkHistory(judge, loop, manifest);
  const outcome = await verifiedOutcome(judge, loop.tip, manifest);
  const signature = signManifest(manifest, judge.hotkey);
  const signed = create(SignedManifestSchema, { manifest, signatures: [proposer, signature] });
  if (!(await judge.book.claimSignature(signed))) {
    throw refused("this validator has signed another manifest of the round");
  }
  // Where these two are a quorum, the round is settled here as well, even if the proposer vanishes now.
  if (isQuorum(signedStake(signed, stake), stake)) await loop.adopt(signed, outcome);
  return create(SignManifestResponseSchema, { signature });
}

function checkHistory(judge: Judge, loop: RoundLoop, manifest: RoundManifest): void {
  const { tip } = loop;
  const { run } = judge.setup;
  if (manifest.runId !== run.runId) throw refused(`this is run ${run.runId}`);
  if (manifest.round !== tip.round + 1) throw refused(`the next round is ${tip.round + 1}`);
  if (!bytesEqual(manifest.baseRoot, tip.root)) throw refused("it starts from another state");
  if (!bytesEqual(manifest.previousManifestSha256, tip.manifestSha256)) {
    throw refused("it follows another manifest");
  }
  const outer = run.outer!;
  if (manifest.rule !== outer.rule || manifest.outerLearningRate !== outer.learningRate) {
    throw refused("rule or outer learning rate is not the run's");
  }
}

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

function refused(why: string): CovenantError {
  return new CovenantError("COV_MANIFEST_REFUSED", `not signed: ${why}`);
}
