import { create } from "@bufbuild/protobuf";
import type { Hotkey } from "@covenant/contracts";
import type { Signature } from "@covenant/contracts/common";
import {
  type RoundManifest,
  type SignedManifest,
  SignedManifestSchema,
} from "@covenant/contracts/gauntlet";
import { fromUnknown, type Logger } from "@covenant/runtime";
import { isQuorum, signedStake, signManifest, verifyManifestSignature } from "@covenant/sparseloco";
import type { Colleagues } from "./colleagues.ts";
import type { Participants } from "./participants.ts";
import type { RoundBook } from "./round-book.ts";

/** What collecting signatures works with. */
export type QuorumModules = {
  hotkey: Hotkey;
  participants: Participants;
  colleagues: Colleagues;
  book: RoundBook;
  logger: Logger;
};

/**
 * Signs a manifest and asks the ledger's other validators to, until more than half of the stake has. Begins with signatures that are known
 * already. Returns undefined when there is no quorum now. Never signs two manifests of one round: throws when it has signed another.
 */
export async function collectSignatures(
  manifest: RoundManifest,
  known: readonly Signature[],
  modules: QuorumModules,
  signal: AbortSignal,
): Promise<SignedManifest | undefined> {
  const { hotkey, participants, book, logger } = modules;
  const own = signManifest(manifest, hotkey);
  const signatures = [own, ...known.filter((signature) => signature.hotkey !== hotkey.address)];
  const signed = create(SignedManifestSchema, { manifest, signatures });
  if (!(await book.claimSignature(signed))) {
    throw new Error(`round ${manifest.round}: another manifest was signed already`);
  }
  await participants.refresh();
  const stake = participants.validatorStake;
  for (const { hotkey: theirs, client } of modules.colleagues.all()) {
    if (isQuorum(signedStake(signed, stake), stake)) return signed;
    if (signed.signatures.some((signature) => signature.hotkey === theirs)) continue;
    signal.throwIfAborted();
    try {
      const { signature } = await client.signManifest({ manifest, proposer: own }, { signal });
      const isTheirs = signature?.hotkey === theirs;
      if (isTheirs && verifyManifestSignature(manifest, signature)) {
        signed.signatures.push(signature);
      }
    } catch (caught) {
      const { code, message } = fromUnknown(caught);
      logger.warn({ code, validator: theirs }, `no signature: ${message}`);
    }
  }
  return isQuorum(signedStake(signed, stake), stake) ? signed : undefined;
}
