import { concatBytes, philox4x32, sha256 } from "@covenant/contracts";
import { readU32, utf8 } from "./bytes.ts";

/** Feistel rounds: four already make a pseudo-random permutation; six leave a margin for small domains. */
const FEISTEL_ROUNDS = 6;

/** A key of two 32-bit words, as Philox4x32 takes it. */
export type PermutationKey = readonly [number, number];

/** Derives a permutation key: the first eight bytes of SHA-256 over a label and the given parts. */
export function permutationKey(label: string, ...parts: readonly Uint8Array[]): PermutationKey {
  const digest = sha256(concatBytes(utf8(label), ...parts));
  return [readU32(digest, 0), readU32(digest, 4)];
}

/**
 * Image of `index` under the keyed permutation of [0, size).
 * A balanced Feistel network over the next even power of two with Philox4x32-10 as round function, walked until it
 * lands inside the domain (fewer than four steps on average). Needs no memory and no knowledge of other indices.
 */
export function permute(key: PermutationKey, size: number, index: number): number {
  if (!Number.isInteger(size) || size < 1 || size > 2 ** 31)
    throw new RangeError("bad domain size");
  if (!Number.isInteger(index) || index < 0 || index >= size) throw new RangeError("index outside");
  const halfBits = Math.max(1, Math.ceil(Math.log2(Math.max(2, size)) / 2));
  const mask = 2 ** halfBits - 1;
  let value = index;
  // A permutation's cycle through `index` returns to it, so the walk ends after at most 4^halfBits steps.
  do {
    let left = Math.floor(value / (mask + 1));
    let right = value & mask;
    for (let round = 0; round < FEISTEL_ROUNDS; round += 1) {
      const mixed = philox4x32([key[0], key[1]], [right, round, 0, 0])[0] & mask;
      [left, right] = [right, (left ^ mixed) & mask];
    }
    value = left * (mask + 1) + right;
  } while (value >= size);
  return value;
}
