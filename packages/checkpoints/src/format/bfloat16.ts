// BF16: the upper half of an fp32, rounded to nearest, ties to even.

/** The BF16 bits of each value, little-endian. NaN stays NaN (made quiet), infinities and the sign of zero stay. */
export function toBfloat16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const result = new Uint8Array(values.length * 2);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    const isNaNWord = (word & 0x7fffffff) > 0x7f800000;
    // Adding just under half, plus one when the kept part is odd, carries exactly when rounding up is right.
    const rounded = isNaNWord ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
    result[i * 2] = rounded & 0xff;
    result[i * 2 + 1] = (rounded >>> 8) & 0xff;
  }
  return result;
}

/** The values of little-endian BF16 bits; exact. Writes into `target`, which has half as many elements as bytes. */
export function fromBfloat16(bytes: Uint8Array, target: Float32Array): void {
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let i = 0; i < bits.length; i++) {
    bits[i] = (bytes[i * 2]! << 16) | (bytes[i * 2 + 1]! << 24);
  }
}
