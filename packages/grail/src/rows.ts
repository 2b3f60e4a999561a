/** A token sequence of which some tokens are scored. */
export interface TokenRow {
  tokens: ArrayLike<number>;
  /** Tokens before this index are context; the rest is scored. At least 1. */
  scoredFrom: number;
}

/** Rows laid out as one rectangular batch, row-major. */
export interface RowBatch {
  tokens: Int32Array;
  /** The token that follows each position, or -1 where it is not scored. */
  targets: Int32Array;
  sequences: number;
  sequenceLength: number;
  /** Scored tokens in total. */
  scoredTokens: number;
}

/**
 * Lays rows out for one forward pass: position p of a row predicts token p + 1. Rows shorter than the
 * longest are filled with `padToken`, which nothing scores and, the model being causal, nothing sees.
 */
export function layoutRows(rows: readonly TokenRow[], padToken: number): RowBatch {
  const sequenceLength = Math.max(1, ...rows.map((row) => row.tokens.length - 1));
  const tokens = new Int32Array(rows.length * sequenceLength).fill(padToken);
  const targets = new Int32Array(rows.length * sequenceLength).fill(-1);
  let scoredTokens = 0;
  rows.forEach((row, index) => {
    const base = index * sequenceLength;
    for (let p = 0; p + 1 < row.tokens.length; p++) {
      tokens[base + p] = row.tokens[p]!;
      if (p + 1 < row.scoredFrom) continue;
      targets[base + p] = row.tokens[p + 1]!;
      scoredTokens++;
    }
  });
  return { tokens, targets, sequences: rows.length, sequenceLength, scoredTokens };
}

/** Copies the scored positions of one row out of an array that has one value per batch position. */
export function rowValues(batch: RowBatch, row: number, values: Float32Array): Float32Array {
  const base = row * batch.sequenceLength;
  const picked: number[] = [];
  for (let p = 0; p < batch.sequenceLength; p++) {
    if (batch.targets[base + p]! >= 0) picked.push(values[base + p]!);
  }
  return Float32Array.from(picked);
}

/** Writes one row's values back to its scored positions. */
export function setRowValues(
  batch: RowBatch,
  row: number,
  values: Float32Array,
  into: Float32Array,
): void {
  const base = row * batch.sequenceLength;
  let next = 0;
  for (let p = 0; p < batch.sequenceLength; p++) {
    if (batch.targets[base + p]! >= 0) into[base + p] = values[next++]!;
  }
}
