/** Mean of paired differences with a confidence interval. */
export type PairedEstimate = {
  /** Mean of before - after: positive is an improvement, nats per token. */
  mean: number;
  /** Half width of the two-sided interval at the asked confidence; Infinity for fewer than two pairs. */
  halfWidth: number;
  /** Standard error of the mean. */
  standardError: number;
  count: number;
};

/**
 * Paired improvement before - after with a Student-t interval. Pairing removes the difference between samples, which is
 * far larger than the effect of one update. Throws a RangeError on unequal lengths or non-finite losses.
 */
export function pairedImprovement(
  before: readonly number[],
  after: readonly number[],
  confidence: number,
): PairedEstimate {
  if (before.length !== after.length) throw new RangeError("before and after differ in length");
  const differences = before.map((loss, index) => loss - after[index]!);
  if (!differences.every(Number.isFinite)) throw new RangeError("a loss is not finite");
  return estimate(differences, confidence);
}

/** Mean of values with a Student-t interval. */
export function estimate(values: readonly number[], confidence: number): PairedEstimate {
  const count = values.length;
  if (count === 0) {
    return { mean: 0, halfWidth: Number.POSITIVE_INFINITY, standardError: 0, count };
  }
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  if (count === 1) return { mean, halfWidth: Number.POSITIVE_INFINITY, standardError: 0, count };
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const standardError = Math.sqrt(squares / (count - 1) / count);
  const quantile = studentQuantile((1 + confidence) / 2, count - 1);
  return { mean, halfWidth: quantile * standardError, standardError, count };
}

/**
 * Difference of two independent estimates (assigned minus unassigned) with Welch's interval: the two sets of samples are
 * different ones, so they cannot be paired with each other.
 */
export function difference(
  a: PairedEstimate,
  b: PairedEstimate,
  confidence: number,
): { mean: number; halfWidth: number } {
  const mean = a.mean - b.mean;
  if (a.count < 2 || b.count < 2) return { mean, halfWidth: Number.POSITIVE_INFINITY };
  const [va, vb] = [a.standardError ** 2, b.standardError ** 2];
  if (va + vb === 0) return { mean, halfWidth: 0 };
  const [fa, fb] = [va / (va + vb), vb / (va + vb)];
  const freedom = 1 / (fa ** 2 / (a.count - 1) + fb ** 2 / (b.count - 1));
  return { mean, halfWidth: studentQuantile((1 + confidence) / 2, freedom) * Math.sqrt(va + vb) };
}

/** Quantile of Student's t distribution by bisection of its distribution function; p in (0.5, 1). */
export function studentQuantile(p: number, freedom: number): number {
  if (!(p > 0.5 && p < 1) || !(freedom > 0)) throw new RangeError("p in (0.5, 1), freedom > 0");
  let [low, high] = [0, 1];
  while (studentCdf(high, freedom) < p && high < 1e9) high *= 2;
  for (let step = 0; step < 100; step += 1) {
    const middle = (low + high) / 2;
    if (studentCdf(middle, freedom) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Distribution function of Student's t for t >= 0, through the regularised incomplete beta function. */
export function studentCdf(t: number, freedom: number): number {
  return 1 - incompleteBeta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2;
}

/** Regularised incomplete beta by its continued fraction (Lentz), as in Numerical Recipes 6.4. */
function incompleteBeta(a: number, b: number, x: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const front = Math.exp(
    logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x),
  );
  if (x < (a + 1) / (a + b + 2)) return (front * betaFraction(a, b, x)) / a;
  return 1 - (front * betaFraction(b, a, 1 - x)) / b;
}

function betaFraction(a: number, b: number, x: number): number {
  const tiny = 1e-300;
  const guard = (value: number) => (Math.abs(value) < tiny ? tiny : value);
  let c = 1;
  let d = 1 / guard(1 - ((a + b) * x) / (a + 1));
  let result = d;
  for (let m = 1; m <= 300; m += 1) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / guard(1 + even * d);
    c = guard(1 + even / c);
    result *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / guard(1 + odd * d);
    c = guard(1 + odd / c);
    result *= d * c;
    if (Math.abs(d * c - 1) < 1e-15) break;
  }
  return result;
}

const LANCZOS = [
  676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406, 12.507343278686905,
  -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7,
];

/** Natural logarithm of the gamma function for x > 0 (Lanczos, g = 7). */
function logGamma(x: number): number {
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const t = x + 6.5;
  const sum = LANCZOS.reduce((total, c, i) => total + c / (x + i), 0.9999999999998099);
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}
