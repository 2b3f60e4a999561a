import { create } from "@bufbuild/protobuf";
import { bytesEqual } from "@covenant/contracts";
import type {
  RoundManifest,
  SignManifestRequest,
  SignManifestResponse,
} from "@covenant/contracts/gauntlet";
import { SignedManifestSchema, SignManifestResponseSchema } from "@covenant/contracts/gauntlet";
import { isQuorum, signedStake, signManifest, verifyManifestSignature } from "@covenant/sparseloco";
import type { Judge } from "./judge.ts";
import type { RoundLoop } from "./round-loop.ts";
import { refused, verifiedOutcome } from "./verify-manifest.ts";

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
