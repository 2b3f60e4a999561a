/**
 * Per-token coefficients c_t = dL/dl_t, where l_t is the log-probability of token t under the model
 * in training. Every objective here is a function of those alone, so one backward serves all.
 */

/** Settings of the clipped policy objective. */
export interface PolicyObjective {
  /** A ratio below 1 - clipLow gets no gradient where the advantage is negative. */
  clipLow: number;
  /** A ratio above 1 + clipHigh gets no gradient where the advantage is positive. */
  clipHigh: number;
  /** Weight beta of the k3 estimate of the divergence from the reference policy. */
  klCoefficient: number;
}

/** One completion, as the objective sees it; all arrays have one entry per completion token. */
export interface PolicySample {
  /** Under the model in training. */
  logProbs: ArrayLike<number>;
  /** Under the policy that sampled, from the verifier's replay. */
  sampledLogProbs: ArrayLike<number>;
  /** Under the reference policy; needed where `klCoefficient` is not 0. */
  referenceLogProbs?: ArrayLike<number>;
  advantage: number;
  /** w_t, equal for all tokens of the completion; see `tokenWeight`. */
  weight: number;
}

/** Coefficients of one completion and the sums that reports are made of. */
export interface PolicyTerms {
  coefficients: Float32Array;
  clippedTokens: number;
  /** Sum over tokens of k3 against the reference. */
  klSum: number;
  /** Sum over tokens of the loss (clipped objective plus KL), weighted. */
  loss: number;
}

/** Mean negative log-likelihood over `scoredTokens` tokens: c = -1/N each. */
export function supervisedCoefficient(scoredTokens: number): number {
  return scoredTokens === 0 ? 0 : -1 / scoredTokens;
}

/**
 * GRPO: 1/(completions x tokens of this completion). Dr. GRPO: 1/(completions x longest allowed), so
 * that long wrong answers are not favoured.
 */
export function tokenWeight(
  rule: "grpo" | "dr_grpo",
  sizes: { completions: number; tokens: number; maxNewTokens: number },
): number {
  return 1 / (sizes.completions * (rule === "grpo" ? sizes.tokens : sizes.maxNewTokens));
}

/**
 * GRPO with asymmetric clip and k3: L = sum_t w (-min(rho A, clip(rho) A) + beta (e^r - r - 1)),
 * rho = exp(l - l_sampled), r = l_reference - l. Hence c = -w A rho where not clipped, plus
 * w beta (1 - e^r).
 */
export function policyTerms(sample: PolicySample, objective: PolicyObjective): PolicyTerms {
  const { advantage, weight } = sample;
  const count = sample.logProbs.length;
  const coefficients = new Float32Array(count);
  let clippedTokens = 0;
  let klSum = 0;
  let loss = 0;
  for (let t = 0; t < count; t++) {
    const logProb = sample.logProbs[t]!;
    const ratio = Math.exp(logProb - sample.sampledLogProbs[t]!);
    const bounded = Math.min(Math.max(ratio, 1 - objective.clipLow), 1 + objective.clipHigh);
    const clipped = ratio * advantage > bounded * advantage;
    if (clipped) clippedTokens++;
    let coefficient = clipped ? 0 : -weight * advantage * ratio;
    loss -= weight * Math.min(ratio * advantage, bounded * advantage);
    if (sample.referenceLogProbs !== undefined) {
      const r = sample.referenceLogProbs[t]! - logProb;
      const k3 = Math.exp(r) - r - 1;
      klSum += k3;
      loss += weight * objective.klCoefficient * k3;
      coefficient += weight * objective.klCoefficient * (1 - Math.exp(r));
    }
    coefficients[t] = coefficient;
  }
  return { coefficients, clippedTokens, klSum, loss };
}
