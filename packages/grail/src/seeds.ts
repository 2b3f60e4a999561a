import { sha256 } from "@covenant/contracts";

const encoder = new TextEncoder();

/** The four bytes of an unsigned integer, least significant first. */
export function u32le(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value >>> 0, true);
  return bytes;
}

/** The eight bytes of an unsigned 64-bit integer, least significant first. */
export function u64le(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return bytes;
}

/** SHA-256 of a domain label and byte strings of fixed length, so that no two uses share a key. */
export function domainHash(domain: string, ...parts: Uint8Array[]): Uint8Array {
  return sha256(encoder.encode(domain), ...parts);
}

/** SHA-256 of token ids, each as four bytes, least significant first. */
export function tokensHash(tokens: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(tokens.length * 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < tokens.length; i++) view.setUint32(i * 4, tokens[i]!, true);
  return sha256(bytes);
}

/** What fixes every draw of a completion. */
export interface SamplingKey {
  /** Randomness of the beacon block, 32 bytes. */
  beacon: Uint8Array;
  checkpointRoot: Uint8Array;
  promptTokens: ArrayLike<number>;
  rolloutIndex: number;
}

/**
 * Key of the Philox stream that draws a completion. It holds no hotkey: an identity more does not buy
 * a draw more, and an assignment that is given to somebody else draws the same completion.
 */
export function samplingSeed(key: SamplingKey): Uint8Array {
  return domainHash(
    "covenant.sampling.v1",
    key.beacon,
    key.checkpointRoot,
    tokensHash(key.promptTokens),
    u32le(key.rolloutIndex),
  );
}

/** Key of the fingerprint's projections: known to nobody before the beacon is. */
export function fingerprintSeed(beacon: Uint8Array, checkpointRoot: Uint8Array): Uint8Array {
  return domainHash("covenant.fingerprint.v1", beacon, checkpointRoot);
}

/** SHA-256 over an environment's name with version and the seed of its episode. */
export function environmentHash(environment: string, seed: bigint): Uint8Array {
  return domainHash("covenant.environment.v1", sha256(encoder.encode(environment)), u64le(seed));
}
