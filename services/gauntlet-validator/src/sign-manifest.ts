import { create } from "@bufbuild/protobuf";
import { bytesEqual, sha256 } from "@covenant/contracts";
import type {
  RoundManifest,
  SignManifestRequest,
  SignManifestResponse,
} from "@covenant/contracts/gauntlet";
import { SignManifestResponseSchema } from "@covenant/contracts/gauntlet";
import { applyMerged, stateRoot } from "@covenant/kernels";
import { CovenantError } from "@covenant/runtime";
import { parsePayload, signManifest, verifyManifestSignature } from "@covenant/sparseloco";
import type { Judge } from "./judge.ts";
import { merge } from "./propose-round.ts";
import type { RoundLoop } from "./round-loop.ts";

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
  await checkOutcome(judge, loop, manifest);
  if (!(await judge.book.claimSignature(manifest))) {
    throw refused("this validator has signed another manifest of the round");
  }
  const signature = signManifest(manifest, judge.hotkey);
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

async function checkOutcome(judge: Judge, loop: RoundLoop, manifest: RoundManifest) {
  const { setup, objects } = judge;
  const { contributors } = manifest;
  if (contributors.length === 0) {
    const same = bytesEqual(manifest.postStateRoot, manifest.baseRoot);
    if (!same || manifest.nullReason === "") throw refused("a null round changes nothing");
    return;
  }
  const maxBytes = setup.payloadBytesMax;
  const bodies: { body: Uint8Array }[] = [];
  for (const { bucket, key, payloadSha256, hotkey } of contributors) {
    const payload = await objects.get(bucket, key, { maxBytes });
    if (!bytesEqual(sha256(payload), payloadSha256)) throw refused(`${bucket}/${key} differs`);
    const parsed = parsePayload(payload, maxBytes);
    if (!parsed.ok) throw refused(`${bucket}/${key}: ${parsed.problem.detail}`);
    const { header, body } = parsed.value;
    if (header.signature?.hotkey !== hotkey) throw refused(`${bucket}/${key} is not by ${hotkey}`);
    bodies.push({ body });
  }
  const weights = Float32Array.from(contributors, ({ weight }) => weight);
  const merged = await merge(setup, bodies, weights);
  if (!bytesEqual(sha256(merged), manifest.mergedSha256)) throw refused("the merge differs");
  const parameters = loop.tip.parameters.slice();
  await applyMerged(parameters, merged, setup.tensors, manifest.outerLearningRate);
  const root = await stateRoot(parameters, setup.tensors);
  if (!bytesEqual(root, manifest.postStateRoot)) throw refused("it leads to another state");
}

function refused(why: string): CovenantError {
  return new CovenantError("COV_MANIFEST_REFUSED", `not signed: ${why}`);
}
