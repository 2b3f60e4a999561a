import {
  add,
  clamp,
  div,
  exp,
  type Fixed,
  fromInteger,
  HALF,
  min,
  mul,
  ONE,
  proportionFromU16,
  sub,
  ZERO,
} from "./fixed.ts";
import { mapEntries, mix, normaliseColumns, type SparseMatrix, upscaleColumns } from "./sparse.ts";
import type { StoredRow, YumaParameters } from "./types.ts";

/** Bonds after an epoch: what is stored and what pays dividends (columns sum to 1). */
export interface BondsStep {
  stored: SparseMatrix;
  shares: SparseMatrix;
}

/** Weights moved toward the clipped weights by the bonds penalty: 0 leaves W, 65535 gives K. */
export function bondWeights(
  weights: SparseMatrix,
  clipped: SparseMatrix,
  bondsPenalty: number,
): SparseMatrix {
  const penalty = proportionFromU16(bondsPenalty);
  if (penalty === ZERO) return weights;
  if (penalty === ONE) return clipped;
  return mix(weights, clipped, (weight, clip) => add(weight, mul(penalty, sub(clip, weight))));
}

/** Stored bonds as proportions (Yuma 3) or as plain numbers to be normalised by column (Yuma 2). */
export function loadBonds(
  rows: readonly StoredRow[],
  yuma3: boolean,
  keep: (column: number) => boolean,
): SparseMatrix {
  return rows.map((row) => {
    const kept = row.filter(([column]) => keep(column));
    return new Map(
      kept.map(([column, value]) => [
        column,
        yuma3 ? proportionFromU16(value) : fromInteger(value),
      ]),
    );
  });
}

/** Moves the bonds toward this epoch's weights by the rule that the parameters choose. */
export function stepBonds(
  weights: SparseMatrix,
  bonds: SparseMatrix,
  activeStake: readonly Fixed[],
  consensus: readonly Fixed[],
  parameters: YumaParameters,
): BondsStep {
  const alpha = sub(ONE, div(fromInteger(parameters.bondsMovingAverage), fromInteger(1_000_000)));
  const average = (next: Fixed, old: Fixed): Fixed =>
    add(mul(alpha, next), mul(sub(ONE, alpha), old));
  if (!parameters.yuma3) {
    const instant = normaliseColumns(
      mapEntries(weights, (weight, row) => mul(weight, activeStake[row]!)),
    );
    const shares = normaliseColumns(mix(instant, normaliseColumns(bonds), average));
    return { stored: upscaleColumns(shares), shares };
  }
  const liquid = parameters.liquidAlpha && consensus.some((value) => value !== ZERO);
  const stored = liquid
    ? liquidAverage(weights, bonds, consensus, parameters)
    : mix(weights, bonds, average);
  return { stored, shares: normaliseColumns(stored) };
}

/** Only pairs named this epoch keep a bond: silence about a neuron gives its bond up at once. */
function liquidAverage(
  weights: SparseMatrix,
  bonds: SparseMatrix,
  consensus: readonly Fixed[],
  parameters: YumaParameters,
): SparseMatrix {
  return mapEntries(weights, (weight, row, column) => {
    const bond = bonds[row]!.get(column) ?? ZERO;
    const alpha = liquidAlpha(weight, bond, consensus[column]!, parameters);
    const moved = add(mul(sub(ONE, alpha), bond), mul(alpha, weight));
    return moved > ZERO ? min(ONE, moved) : undefined;
  });
}

/** Smoothing of one pair: the further the validator is from the consensus, the faster it moves. */
export function liquidAlpha(
  weight: Fixed,
  bond: Fixed,
  consensus: Fixed,
  parameters: YumaParameters,
): Fixed {
  const low = proportionFromU16(parameters.alphaLow);
  const high = proportionFromU16(parameters.alphaHigh);
  const distance =
    weight >= bond ? clamp(sub(weight, consensus), ZERO, ONE) : clamp(sub(bond, weight), ZERO, ONE);
  const steepness = div(fromInteger(parameters.alphaSigmoidSteepness), fromInteger(100));
  const sigmoid = div(ONE, add(ONE, exp(mul(-steepness, sub(distance, HALF)))));
  return clamp(add(low, mul(sigmoid, sub(high, low))), low, high);
}
