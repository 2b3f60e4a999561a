import { create } from "@bufbuild/protobuf";
import {
  bytesEqual,
  canonicalBytes,
  concatBytes,
  type Hotkey,
  sha256,
  verifySignature,
} from "@covenant/contracts";
import { type Signature, SignatureSchema } from "@covenant/contracts/common";
import {
  type RoundManifest,
  RoundManifestSchema,
  type SignedManifest,
} from "@covenant/contracts/gauntlet";
import { utf8 } from "./bytes.ts";
import { shortHex } from "./header.ts";
import { accepted, type Checked, refused } from "./result.ts";

/** More contributors than any round has; bounds what a reader accepts. */
export const CONTRIBUTORS_MAX = 256;

/** SHA-256 of the manifest's canonical bytes: its name, and the link from the next round. */
export function manifestHash(manifest: RoundManifest): Uint8Array {
  return sha256(canonicalBytes(RoundManifestSchema, manifest));
}

function signedBytesOf(manifest: RoundManifest): Uint8Array {
  return concatBytes(utf8("covenant.round-manifest.v1"), manifestHash(manifest));
}

/** Signs a manifest. The label keeps a manifest's signature from being valid for anything else. */
export function signManifest(manifest: RoundManifest, hotkey: Hotkey): Signature {
  const value = hotkey.sign(signedBytesOf(manifest));
  return create(SignatureSchema, { hotkey: hotkey.address, value });
}

/** True when the signature is by its hotkey over exactly this manifest. */
export function verifyManifestSignature(manifest: RoundManifest, signature: Signature): boolean {
  return verifySignature(signature.hotkey, signedBytesOf(manifest), signature.value);
}

/** Stake of the validators that may sign, by hotkey. */
export type ValidatorStake = ReadonlyMap<string, bigint>;

/** Stake behind valid signatures by distinct known validators. */
export function signedStake(signed: SignedManifest, stake: ValidatorStake): bigint {
  const manifest = signed.manifest;
  if (manifest === undefined) return 0n;
  const counted = new Set<string>();
  let total = 0n;
  for (const signature of signed.signatures) {
    const share = stake.get(signature.hotkey);
    if (share === undefined || counted.has(signature.hotkey)) continue;
    if (!verifyManifestSignature(manifest, signature)) continue;
    counted.add(signature.hotkey);
    total += share;
  }
  return total;
}

/** True when `stake` is more than half of all validators' stake. */
export function isQuorum(stake: bigint, validators: ValidatorStake): boolean {
  const total = [...validators.values()].reduce((sum, share) => sum + share, 0n);
  return total > 0n && stake * 2n > total;
}

/** What the reader of a manifest knows by itself. */
export type ManifestExpectation = {
  runId: string;
  round: number;
  baseRoot: Uint8Array;
  validators: ValidatorStake;
  /** Hash of the previous manifest; undefined when the reader never saw it (it joined from a checkpoint). */
  previousManifestSha256: Uint8Array | undefined;
};

/**
 * Checks a signed manifest: run, round, base, link to the previous one, well-formed contributors, and signatures by more than
 * half of the validators' stake. Whether its post-state root is right shows when it is applied.
 */
export function checkManifest(
  signed: SignedManifest,
  expected: ManifestExpectation,
): Checked<RoundManifest> {
  const manifest = signed.manifest;
  if (manifest === undefined) return refused("MALFORMED", "no manifest inside");
  if (manifest.runId !== expected.runId) return refused("WRONG_RUN", `run ${manifest.runId}`);
  if (manifest.round !== expected.round) return refused("WRONG_ROUND", `round ${manifest.round}`);
  if (!bytesEqual(manifest.baseRoot, expected.baseRoot)) {
    const [theirs, ours] = [shortHex(manifest.baseRoot), shortHex(expected.baseRoot)];
    return refused("WRONG_BASE", `manifest starts from ${theirs}, the local state is ${ours}`);
  }
  const previous = expected.previousManifestSha256;
  if (previous !== undefined && !bytesEqual(manifest.previousManifestSha256, previous)) {
    return refused("WRONG_BASE", "manifest does not follow the previous one");
  }
  const malformed = malformedContributors(manifest);
  if (malformed !== undefined) return refused("MALFORMED", malformed);
  const stake = signedStake(signed, expected.validators);
  if (!isQuorum(stake, expected.validators)) {
    return refused("NO_QUORUM", `signatures hold ${stake} of the validators' stake`);
  }
  return accepted(manifest);
}

function malformedContributors(manifest: RoundManifest): string | undefined {
  const { contributors } = manifest;
  if (contributors.length > CONTRIBUTORS_MAX) return `${contributors.length} contributors`;
  if ((contributors.length === 0) !== (manifest.nullReason !== "")) {
    return "a round is null exactly when it has no contributors";
  }
  const names = new Set(contributors.map((contributor) => contributor.hotkey));
  if (names.size !== contributors.length) return "a contributor is listed twice";
  const bad = contributors.find((c) => !(Number.isFinite(c.weight) && c.weight > 0));
  return bad === undefined ? undefined : `contributor ${bad.hotkey} has weight ${bad.weight}`;
}
