import { add, div, type Fixed, max, mul, sum, ZERO } from "./fixed.ts";

/**
 * Sparse matrices of the consensus: one map per validator from neuron uid to value.
 *
 * A key with the value zero is not the same as an absent key: a validator that names a neuron with
 * weight zero keeps its bond moving, one that does not name it loses the bond (Yuma 3 with liquid
 * alpha). So no operation here adds or drops keys unless it says so.
 */
export type SparseRow = Map<number, Fixed>;
/** Row i belongs to uid i. */
export type SparseMatrix = SparseRow[];

/** A matrix made from another, entry by entry; entries mapped to undefined are dropped. */
export function mapEntries(
  matrix: SparseMatrix,
  change: (value: Fixed, row: number, column: number) => Fixed | undefined,
): SparseMatrix {
  return matrix.map((entries, row) => {
    const changed: SparseRow = new Map();
    for (const [column, value] of entries) {
      const next = change(value, row, column);
      if (next !== undefined) changed.set(column, next);
    }
    return changed;
  });
}

/** Every row divided by its sum; rows with sum 0 unchanged. */
export function normaliseRows(matrix: SparseMatrix): SparseMatrix {
  const totals = rowSums(matrix);
  return mapEntries(matrix, (value, row) =>
    totals[row] === ZERO ? value : div(value, totals[row]!),
  );
}

/** Every column divided by its sum; columns with sum 0 unchanged. */
export function normaliseColumns(matrix: SparseMatrix): SparseMatrix {
  const totals = columnFold(matrix, add);
  return mapEntries(matrix, (value, _row, column) =>
    totals[column] === ZERO ? value : div(value, totals[column]!),
  );
}

/** Every column divided by its largest value, so that the largest becomes 1. */
export function upscaleColumns(matrix: SparseMatrix): SparseMatrix {
  const largest = columnFold(matrix, max);
  return mapEntries(matrix, (value, _row, column) =>
    largest[column] === ZERO ? value : div(value, largest[column]!),
  );
}

/** Sum of each row. */
export function rowSums(matrix: SparseMatrix): Fixed[] {
  return matrix.map((row) => sum([...row.values()]));
}

/** Σ_i scale_i · M_ij for each column j. */
export function weightedColumnSums(matrix: SparseMatrix, scale: readonly Fixed[]): Fixed[] {
  return columnFold(
    mapEntries(matrix, (value, row) => mul(scale[row]!, value)),
    add,
  );
}

/** Σ_j M_ij · vector_j for each row i. */
export function timesVector(matrix: SparseMatrix, vector: readonly Fixed[]): Fixed[] {
  return rowSums(mapEntries(matrix, (value, _row, column) => mul(value, vector[column]!)));
}

/** Two matrices combined over the union of their entries; entries that end at 0 are dropped. */
export function mix(
  first: SparseMatrix,
  second: SparseMatrix,
  combine: (first: Fixed, second: Fixed) => Fixed,
): SparseMatrix {
  return first.map((row, index) => {
    const other = second[index]!;
    const columns = [...new Set([...row.keys(), ...other.keys()])].sort((a, b) => a - b);
    const mixed: SparseRow = new Map();
    for (const column of columns) {
      const value = combine(row.get(column) ?? ZERO, other.get(column) ?? ZERO);
      if (value > ZERO) mixed.set(column, value);
    }
    return mixed;
  });
}

function columnFold(matrix: SparseMatrix, fold: (a: Fixed, b: Fixed) => Fixed): Fixed[] {
  const columns = new Array<Fixed>(matrix.length).fill(ZERO);
  for (const row of matrix) {
    for (const [column, value] of row) columns[column] = fold(columns[column]!, value);
  }
  return columns;
}
