import { VerdictReason } from "@covenant/contracts/gauntlet";
import type { CopyFinding } from "./copies.ts";
import { difference, type PairedEstimate, pairedImprovement } from "./statistics.ts";

/** How sure a judgement must be. */
export type JudgeRules = {
  /** Two-sided confidence of the improvement interval. */
  improvementConfidence: number;
  /** Two-sided confidence with which "worse on its own samples" must hold; high, since it punishes. */
  proofConfidence: number;
  /** Share of the round's typical improvement that an update must surely exceed. */
  typicalShareMin: number;
};

/**
 * Defaults: an honest update is wrongly called untrained once in 2000. Honest updates of one round, measured
 * on few samples, stay above a third of their median; random numbers help by chance now and then, by a fraction of that.
 */
export const JUDGE_RULES: JudgeRules = {
  improvementConfidence: 0.9,
  proofConfidence: 0.999,
  typicalShareMin: 0.2,
};

/** Fewer measured updates than this have no typical improvement. */
const TYPICAL_OF_MIN = 3;

/** Losses per sample before and after a share of the update was applied, nats per token. */
export type LossEvidence = {
  assignedBefore: readonly number[];
  assignedAfter: readonly number[];
  unassignedBefore: readonly number[];
  unassignedAfter: readonly number[];
};

/** A judgement in numbers and words. */
export type Judgement = {
  reason: VerdictReason;
  explanation: string;
  assignedImprovement: number;
  unassignedImprovement: number;
  /** Half width of the interval of assigned minus unassigned improvement; 0 when it was not measured. */
  confidence: number;
};

/** Improvement over both sets of samples together: what decides whether an update helps at all. */
export function overallImprovement(evidence: LossEvidence, rules: JudgeRules): PairedEstimate {
  return pairedImprovement(
    [...evidence.assignedBefore, ...evidence.unassignedBefore],
    [...evidence.assignedAfter, ...evidence.unassignedAfter],
    rules.improvementConfidence,
  );
}

/** What the improvement must exceed with confidence: a share of the round's typical one, and never less than 0. */
function requiredImprovement(typical: number, rules: JudgeRules): number {
  return Math.max(0, rules.typicalShareMin * typical);
}

/** True while more samples could still change whether the update helps enough. */
export function isUndecided(
  evidence: LossEvidence,
  typical = 0,
  rules: JudgeRules = JUDGE_RULES,
): boolean {
  const { mean, halfWidth } = overallImprovement(evidence, rules);
  return Math.abs(mean - requiredImprovement(typical, rules)) <= halfWidth;
}

/**
 * Median improvement of the updates measured in a round, or 0 when there are too few to say. While most of them are honest, the median lies
 * among the honest.
 */
export function typicalImprovement(
  evidence: readonly LossEvidence[],
  rules: JudgeRules = JUDGE_RULES,
): number {
  if (evidence.length < TYPICAL_OF_MIN) return 0;
  const means = evidence.map((losses) => overallImprovement(losses, rules).mean);
  means.sort((a, b) => a - b);
  const middle = means.length / 2;
  return (means[Math.ceil(middle) - 1]! + means[Math.floor(middle)]!) / 2;
}

/**
 * The verdict rule for an update that passed the checks: a copy never contributes; an update contributes when it surely lowers
 * the loss, and by more than a share of what is typical in its round, and is not significantly worse on the samples its peer had to train on than on others.
 */
export function judgeUpdate(
  copy: CopyFinding,
  evidence: LossEvidence | undefined,
  typical = 0,
  rules: JudgeRules = JUDGE_RULES,
): Judgement {
  if (copy.copy) return copyJudgement(copy);
  if (evidence === undefined) throw new RangeError("an update that is no copy needs evidence");
  const { improvementConfidence, proofConfidence } = rules;
  const { assignedBefore, assignedAfter, unassignedBefore, unassignedAfter } = evidence;
  const assigned = pairedImprovement(assignedBefore, assignedAfter, improvementConfidence);
  const other = pairedImprovement(unassignedBefore, unassignedAfter, improvementConfidence);
  const overall = overallImprovement(evidence, rules);
  const proof = difference(assigned, other, proofConfidence);
  const numbers = {
    assignedImprovement: assigned.mean,
    unassignedImprovement: other.mean,
    confidence: Number.isFinite(proof.halfWidth) ? proof.halfWidth : 0,
  };
  const measured = `${signed(overall.mean)} ± ${overall.halfWidth.toFixed(4)} nats per token`;
  if (!(overall.mean - overall.halfWidth > 0)) {
    const explanation = `loss did not fall with confidence: ${measured} on ${overall.count} samples`;
    return { reason: VerdictReason.NO_IMPROVEMENT, explanation, ...numbers };
  }
  const required = requiredImprovement(typical, rules);
  if (!(overall.mean - overall.halfWidth > required)) {
    const share = `${(rules.typicalShareMin * 100).toFixed(0)} % of the round's median`;
    const explanation = `helps by ${measured}, not surely by more than ${share} ${signed(typical)}`;
    return { reason: VerdictReason.NO_IMPROVEMENT, explanation, ...numbers };
  }
  const own = `own samples ${signed(assigned.mean)}, others ${signed(other.mean)}`;
  if (proof.mean + proof.halfWidth < 0) {
    const explanation = `helps less on its own samples than on others: ${own}`;
    return { reason: VerdictReason.NOT_TRAINED_ON_ASSIGNED, explanation, ...numbers };
  }
  const explanation = `loss falls by ${measured} on ${overall.count} samples; ${own}`;
  return { reason: VerdictReason.ACCEPTED, explanation, ...numbers };
}

function copyJudgement(copy: CopyFinding): Judgement {
  const overlap = `${(copy.overlap * 100).toFixed(0)} % of its positions`;
  return {
    reason: VerdictReason.COPY,
    explanation: `copy: shares ${overlap} (cosine ${copy.similarity.toFixed(2)}) with the earlier update of ${copy.overlapWith}`,
    assignedImprovement: 0,
    unassignedImprovement: 0,
    confidence: 0,
  };
}

function signed(value: number): string {
  return `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(4)}`;
}
