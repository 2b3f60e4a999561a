/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): randomness as a
 * pure function of key and counter, so that every machine draws the same numbers in any order.
 */

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** Two unsigned 32-bit words. */
export type PhiloxKey = readonly [number, number];
/** Four unsigned 32-bit words. */
export type PhiloxBlock = [number, number, number, number];

/** One block of four unsigned 32-bit words; inputs are taken modulo 2^32. */
export function philox4x32(
  key: PhiloxKey,
  counter: readonly [number, number, number, number],
): PhiloxBlock {
  let [k0, k1] = [key[0] >>> 0, key[1] >>> 0];
  let [c0, c1, c2, c3] = counter.map((word) => word >>> 0) as PhiloxBlock;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * The `index`-th uniform number in (0, 1) of a 32-byte seed (the first 16 bytes are used): key =
 * seed[0..8), counter = (index, 0, seed[8..12), seed[12..16)), value = (x0 + 0.5) · 2^-32. Exact in
 * double precision. Throws a RangeError on a short seed or an index outside unsigned 32 bits.
 */
export function uniformAt(seed: Uint8Array, index: number): number {
  if (seed.length !== 32) throw new RangeError(`Expected a seed of 32 bytes, got ${seed.length}`);
  if (!Number.isInteger(index) || index < 0 || index > 0xffff_ffff) {
    throw new RangeError(`Expected an unsigned 32-bit index, got ${index}`);
  }
  const words = new DataView(seed.buffer, seed.byteOffset, 16);
  const key = [words.getUint32(0, true), words.getUint32(4, true)] as const;
  const block = philox4x32(key, [index, 0, words.getUint32(8, true), words.getUint32(12, true)]);
  return (block[0] + 0.5) * 2 ** -32;
}

/** High word of the 64-bit product, from 16-bit halves: exact in doubles, and without big integers. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)) >>> 0;
}
