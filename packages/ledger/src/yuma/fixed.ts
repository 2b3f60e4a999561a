/**
 * Signed 64-bit fixed point with 32 fractional bits (I32F32), held in a bigint.
 *
 * The consensus is computed in integers so that every machine agrees on every bit. The operations
 * saturate at the 64-bit range, multiplication floors, division truncates toward zero and x/0 is 0,
 * exactly like the runtime that produced the vectors.
 */
export type Fixed = bigint;

const FRACTION_BITS = 32n;
const MAXIMUM: Fixed = (1n << 63n) - 1n;
const MINIMUM: Fixed = -(1n << 63n);
const U16_MAXIMUM = 65535n;
/** Exponents beyond this magnitude are clamped: e^20 still fits into 31 integer bits. */
const EXPONENT_LIMIT: Fixed = 20n << FRACTION_BITS;
/** Terms of the exponential's series; the term with index 31 is below one unit for |x| ≤ 5. */
const EXPONENTIAL_TERMS = 32n;

/** Zero. */
export const ZERO: Fixed = 0n;
/** One. */
export const ONE: Fixed = 1n << FRACTION_BITS;
/** One half. */
export const HALF: Fixed = ONE >> 1n;

function saturate(value: bigint): Fixed {
  if (value > MAXIMUM) return MAXIMUM;
  return value < MINIMUM ? MINIMUM : value;
}

/** An integer as fixed point. */
export function fromInteger(value: number | bigint): Fixed {
  return saturate(BigInt(value) << FRACTION_BITS);
}

/** a + b, saturating. */
export function add(a: Fixed, b: Fixed): Fixed {
  return saturate(a + b);
}

/** a − b, saturating. */
export function sub(a: Fixed, b: Fixed): Fixed {
  return saturate(a - b);
}

/** floor(a · b), saturating. */
export function mul(a: Fixed, b: Fixed): Fixed {
  return saturate((a * b) >> FRACTION_BITS);
}

/** a / b truncated toward zero; 0 when b is 0. */
export function div(a: Fixed, b: Fixed): Fixed {
  return b === 0n ? 0n : saturate((a << FRACTION_BITS) / b);
}

/** The value limited to [low, high]. */
export function clamp(value: Fixed, low: Fixed, high: Fixed): Fixed {
  if (value < low) return low;
  return value > high ? high : value;
}

/** The larger of two values. */
export function max(a: Fixed, b: Fixed): Fixed {
  return clamp(a, b, MAXIMUM);
}

/** The smaller of two values. */
export function min(a: Fixed, b: Fixed): Fixed {
  return clamp(a, MINIMUM, b);
}

/** A u16 as a proportion of 65535. */
export function proportionFromU16(value: number): Fixed {
  return div(fromInteger(value), fromInteger(U16_MAXIMUM));
}

/** A proportion as u16, floored: 1 minus one unit gives 65534, as on the real chain. */
export function proportionToU16(value: Fixed): number {
  const scaled = mul(value, fromInteger(U16_MAXIMUM)) >> FRACTION_BITS;
  return Number(clamp(scaled, 0n, U16_MAXIMUM));
}

/** floor(proportion · amount) for a whole amount such as rao. */
export function shareOf(proportion: Fixed, amount: bigint): bigint {
  return (proportion * amount) >> FRACTION_BITS;
}

/** Sum of a vector. */
export function sum(values: readonly Fixed[]): Fixed {
  let total = ZERO;
  for (const value of values) total = add(total, value);
  return total;
}

/** The vector divided by its sum; unchanged when the sum is 0. */
export function normalise(values: readonly Fixed[]): Fixed[] {
  const total = sum(values);
  return total === ZERO ? [...values] : values.map((value) => div(value, total));
}

/** Stakes in rao as proportions of their sum, divided with 64 fractional bits and then floored. */
export function normaliseStake(stakes: readonly bigint[]): Fixed[] {
  let total = 0n;
  for (const stake of stakes) total += stake;
  if (total === 0n) return stakes.map(() => ZERO);
  return stakes.map((stake) => ((stake << 64n) / total) >> (64n - FRACTION_BITS));
}

/** e^x by the power series of |x| (the reciprocal for negative x); x is clamped to ±20. */
export function exp(x: Fixed): Fixed {
  const exponent = clamp(x, -EXPONENT_LIMIT, EXPONENT_LIMIT);
  const magnitude = exponent < 0n ? -exponent : exponent;
  let term = magnitude;
  let result = add(ONE, magnitude);
  for (let index = 2n; index < EXPONENTIAL_TERMS; index++) {
    term = div(mul(term, magnitude), fromInteger(index));
    result = add(result, term);
  }
  return exponent < 0n ? div(ONE, result) : result;
}
