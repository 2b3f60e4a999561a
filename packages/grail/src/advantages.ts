/** How rewards of a group become advantages. */
export type AdvantageRule = "grpo" | "dr_grpo";

/** Below this standard deviation a group says nothing: all completions were equally good. */
export const zeroVarianceDeviation = 1e-6;

/** Mean of numbers; 0 for none. */
export function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Standard deviation of a whole population (divided by n); 0 for none. */
export function deviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - centre) ** 2)));
}

/**
 * Advantages of a group's completions.
 * `grpo`: (r - mean) / standard deviation; `dr_grpo`: r - mean. A group without variance gets zeros
 * under both, so a guard in the denominator never amplifies rounding.
 */
export function groupAdvantages(rewards: readonly number[], rule: AdvantageRule): number[] {
  const centre = mean(rewards);
  const spread = deviation(rewards);
  if (spread < zeroVarianceDeviation) return rewards.map(() => 0);
  const scale = rule === "grpo" ? 1 / spread : 1;
  return rewards.map((reward) => (reward - centre) * scale);
}

/** Whether a group's rewards differ at all; groups that do not are left out of training. */
export function hasVariance(rewards: readonly number[]): boolean {
  return deviation(rewards) >= zeroVarianceDeviation;
}

/** Worth of a group at the edge of what the policy can do: deviation times the share of failure. */
export function frontierValue(rewards: readonly number[]): number {
  return deviation(rewards) * (1 - mean(rewards));
}

/**
 * The groups to train on: those with variance, by descending frontier value, at most `limit`.
 * Ties keep the given order, so the choice is the same everywhere.
 */
export function selectGroups<T extends { rewards: readonly number[] }>(
  groups: readonly T[],
  limit: number,
): T[] {
  return groups
    .filter((group) => hasVariance(group.rewards))
    .map((group, order) => ({ group, order, value: frontierValue(group.rewards) }))
    .sort((a, b) => b.value - a.value || a.order - b.order)
    .slice(0, limit)
    .map((entry) => entry.group);
}
