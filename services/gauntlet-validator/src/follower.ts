import { bytesEqual, concatBytes, sha256 } from "@covenant/contracts";
import type { RoundManifest, SignedManifest } from "@covenant/contracts/gauntlet";
import { applyMerged, stateRoot } from "@covenant/kernels";
import { CovenantError, fromUnknown } from "@covenant/runtime";
import { checkManifest } from "@covenant/sparseloco";
import type { ValidatorClient } from "./colleagues.ts";
import type { Judge } from "./judge.ts";
import type { Outcome } from "./outcome.ts";
import type { RoundLoop } from "./round-loop.ts";
import type { Tip } from "./tip.ts";

const POLL_MS = 1_000;

/**
 * Takes over rounds that a quorum signed without this validator: it was down, it came late, or another one was faster. Every manifest is
 * checked and applied like a peer does it, so what is served from here is as good as from the proposer.
 */
export async function followColleagues(judge: Judge, loop: RoundLoop): Promise<void> {
  const { signal, clock, logger, colleagues } = judge;
  while (!signal.aborted) {
    for (const { hotkey, client } of colleagues.all()) {
      try {
        while (await adoptNext(judge, loop, client)) signal.throwIfAborted();
      } catch (caught) {
        if (signal.aborted) return;
        const { code, message } = fromUnknown(caught);
        if (code !== "COV_ROUND_UNKNOWN") logger.warn({ code, validator: hotkey }, message);
      }
    }
    await clock.sleep(POLL_MS, signal).catch(() => {});
  }
}

/** Adopts the next round from one colleague; false when it has not been signed there. */
async function adoptNext(judge: Judge, loop: RoundLoop, client: ValidatorClient): Promise<boolean> {
  const { tip } = loop;
  const round = tip.round + 1;
  if (round >= judge.setup.run.rounds) return false;
  const { round: seen } = await client.getRound({ round }, { signal: judge.signal });
  const signed = seen?.signedManifest;
  if (signed === undefined || loop.tip.round !== tip.round) return false;
  const manifest = verified(judge, tip, signed);
  const outcome = await apply(judge, tip, manifest, client);
  await loop.adopt(signed, outcome);
  return true;
}

function verified(judge: Judge, tip: Tip, signed: SignedManifest): RoundManifest {
  const checked = checkManifest(signed, {
    runId: judge.setup.run.runId,
    round: tip.round + 1,
    baseRoot: tip.root,
    validators: judge.participants.validatorStake,
    previousManifestSha256: tip.manifestSha256,
  });
  if (checked.ok) return checked.value;
  throw new CovenantError("COV_MANIFEST_REFUSED", `not adopted: ${checked.problem.detail}`);
}

async function apply(
  judge: Judge,
  tip: Tip,
  manifest: RoundManifest,
  client: ValidatorClient,
): Promise<Outcome> {
  const { tensors } = judge.setup;
  const parameters = tip.parameters.slice();
  const merged = await fetchMerged(manifest, client, judge.signal);
  if (merged.length > 0) {
    await applyMerged(parameters, merged, tensors, manifest.outerLearningRate);
  }
  if (!bytesEqual(await stateRoot(parameters, tensors), manifest.postStateRoot)) {
    const message = `round ${manifest.round} leads to another state`;
    throw new CovenantError("COV_STATE_DIVERGED", message);
  }
  return { merged, parameters };
}

async function fetchMerged(
  manifest: RoundManifest,
  client: ValidatorClient,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { round, mergedBytes, mergedSha256 } = manifest;
  if (mergedBytes === 0n) return new Uint8Array();
  const parts: Uint8Array[] = [];
  let received = 0;
  for await (const { data } of client.getMergedUpdate({ round }, { signal })) {
    received += data.length;
    if (received > Number(mergedBytes)) break;
    parts.push(data);
  }
  const merged = concatBytes(...parts);
  if (bytesEqual(sha256(merged), mergedSha256)) return merged;
  throw new CovenantError("COV_MERGED_MISMATCH", `merged update of round ${round} differs`);
}
