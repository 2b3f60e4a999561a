import { create } from "@bufbuild/protobuf";
import type { Hotkey } from "@covenant/contracts";
import type { Signature } from "@covenant/contracts/common";
import {
  type RoundManifest,
  type SignedManifest,
  SignedManifestSchema,
  Validator,
} from "@covenant/contracts/gauntlet";
import { createClient, fromUnknown, type Logger } from "@covenant/runtime";
import { isQuorum, signedStake, signManifest, verifyManifestSignature } from "@covenant/sparseloco";
import type { Participants } from "./participants.ts";
import type { RoundBook } from "./round-book.ts";

const SIGN_TIMEOUT_MS = 120_000;

/** What collecting signatures works with. */
export type QuorumModules = {
  hotkey: Hotkey;
  caFile: string;
  participants: Participants;
  book: RoundBook;
  logger: Logger;
};

/**
 * Signs a manifest and asks the ledger's other validators to, until more than half of the stake has. Returns undefined when that is not
 * reached now. Never signs two manifests of one round: throws when it has signed another.
 */
export async function collectSignatures(
  manifest: RoundManifest,
  modules: QuorumModules,
  signal: AbortSignal,
): Promise<SignedManifest | undefined> {
  const { hotkey, participants, book, logger } = modules;
  if (!(await book.claimSignature(manifest))) {
    throw new Error(`round ${manifest.round}: another manifest was signed already`);
  }
  await participants.refresh();
  const own = signManifest(manifest, hotkey);
  const signatures: Signature[] = [own];
  const stake = participants.validatorStake;
  const enough = () => {
    const signed = create(SignedManifestSchema, { manifest, signatures });
    return isQuorum(signedStake(signed, stake), stake) ? signed : undefined;
  };
  const others = participants.validators
    .filter((validator) => validator.hotkey !== hotkey.address)
    .sort((a, b) => (a.stakeRao < b.stakeRao ? 1 : -1));
  for (const validator of others) {
    const signed = enough();
    if (signed !== undefined) return signed;
    signal.throwIfAborted();
    const { host, port } = validator.endpoint!;
    try {
      const client = createClient(Validator, {
        url: `https://${host}:${port}`,
        caFile: modules.caFile,
        hotkey,
        timeoutMs: SIGN_TIMEOUT_MS,
      });
      const { signature } = await client.signManifest({ manifest, proposer: own }, { signal });
      const isTheirs = signature?.hotkey === validator.hotkey;
      if (isTheirs && verifyManifestSignature(manifest, signature)) signatures.push(signature);
    } catch (caught) {
      const { code, message } = fromUnknown(caught);
      logger.warn({ code, validator: validator.hotkey }, `no signature: ${message}`);
    }
  }
  return enough();
}
