/** How scores become shares. */
export type WeightRules = {
  topCount: number;
  topShare: number;
  /** First to last of the top group, linear. */
  topRatio: number;
  reserveCount: number;
  reserveDecay: number;
  /** Share that goes to the burn uid instead of the peers. */
  burnShare: number;
};

/** Templar's figures; burning is off unless a subnet asks for it. */
export const WEIGHT_RULES: WeightRules = {
  topCount: 20,
  topShare: 0.75,
  topRatio: 2,
  reserveCount: 10,
  reserveDecay: 0.5,
  burnShare: 0,
};

/** Shares by hotkey, and what is burnt; together 1, or all burnt when nobody has a positive score. */
export type WeightShares = { shares: Map<string, number>; burn: number };

/**
 * Shares of the weights: the top group shares 75 % on a linear 2:1 ramp, the reserve 25 % by powers of 0.5, scaled so that no reserve
 * peer passes the lowest of the top group; then everything is renormalised. Only positive scores count. Ties go by hotkey.
 */
export function computeWeights(
  scores: ReadonlyMap<string, number>,
  rules: WeightRules = WEIGHT_RULES,
): WeightShares {
  const ranked = [...scores]
    .filter(([, score]) => Number.isFinite(score) && score > 0)
    .sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
    .map(([hotkey]) => hotkey);
  const top = ranked.slice(0, rules.topCount);
  const reserve = ranked.slice(rules.topCount, rules.topCount + rules.reserveCount);
  if (top.length === 0) return { shares: new Map(), burn: 1 };
  const ramp = top.map((_, i) => rampValue(i, top.length, rules.topRatio));
  const rampSum = ramp.reduce((sum, value) => sum + value, 0);
  const raw = new Map(top.map((hotkey, i) => [hotkey, (ramp[i]! / rampSum) * rules.topShare]));
  const lowest = raw.get(top.at(-1)!)!;
  const decays = reserve.map((_, i) => rules.reserveDecay ** i);
  const decaySum = decays.reduce((sum, value) => sum + value, 0);
  const scale = reserve.length > 0 ? Math.min((1 - rules.topShare) / decaySum, lowest) : 0;
  for (const [i, hotkey] of reserve.entries()) raw.set(hotkey, decays[i]! * scale);
  const total = [...raw.values()].reduce((sum, value) => sum + value, 0);
  const paid = 1 - rules.burnShare;
  const shares = new Map([...raw].map(([hotkey, value]) => [hotkey, (value / total) * paid]));
  return { shares, burn: rules.burnShare };
}

function rampValue(index: number, count: number, ratio: number): number {
  return count === 1 ? ratio : ratio - ((ratio - 1) * index) / (count - 1);
}
