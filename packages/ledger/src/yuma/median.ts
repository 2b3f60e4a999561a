import { add, type Fixed, normalise, sub, sum, ZERO } from "./fixed.ts";
import type { SparseMatrix } from "./sparse.ts";

/**
 * The stake-weighted median of each column: the largest weight that a majority of the stake supports.
 *
 * Only validators with active stake take part, a neuron that a validator does not name counts as
 * weight 0, and the stake is normalised again over the participants.
 */
export function consensusWeights(
  weights: SparseMatrix,
  activeStake: readonly Fixed[],
  majority: Fixed,
): Fixed[] {
  const voters = activeStake.flatMap((stake, uid) => (stake > ZERO ? [uid] : []));
  const stake = normalise(voters.map((uid) => activeStake[uid]!));
  return weights.map((_row, column) =>
    weightedMedian(
      stake,
      voters.map((uid) => weights[uid]!.get(column) ?? ZERO),
      majority,
    ),
  );
}

/**
 * Searches the weighted median by narrowing a partition around a pivot. The pivot is taken by
 * position, not by rank, because the exact sums of stake (and so the rounding) depend on the order.
 */
export function weightedMedian(
  stake: readonly Fixed[],
  scores: readonly Fixed[],
  majority: Fixed,
): Fixed {
  if (stake.length === 0) return ZERO;
  const total = sum(stake);
  const minority = sub(total, majority);
  let partition = stake.map((_value, index) => index);
  let low = ZERO;
  let high = total;
  // Each pass removes at least the pivot, so there are at most as many passes as voters.
  while (partition.length > 1) {
    const pivot = scores[partition[Math.floor(partition.length / 2)]!]!;
    const lower = partition.filter((index) => scores[index]! < pivot);
    const upper = partition.filter((index) => scores[index]! > pivot);
    const lowerEnd = add(low, sum(lower.map((index) => stake[index]!)));
    const upperStart = sub(high, sum(upper.map((index) => stake[index]!)));
    if (lower.length > 0 && minority < lowerEnd) {
      partition = lower;
      high = lowerEnd;
    } else if (upper.length > 0 && upperStart <= minority) {
      partition = upper;
      low = upperStart;
    } else {
      return pivot;
    }
  }
  return scores[partition[0]!]!;
}
