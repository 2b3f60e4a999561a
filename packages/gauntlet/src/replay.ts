import { type ExplainScoreResponse, VerdictReason } from "@covenant/contracts/gauntlet";
import { COPY_RULES, type CopyRules } from "./copies.ts";
import { JUDGE_RULES, type Judgement, type JudgeRules, judgeUpdate } from "./judge.ts";

/** The outcome of computing a verdict again from its bundle. */
export type Replay = { agrees: boolean; differences: string[]; judgement: Judgement | undefined };

const EVIDENCE_REASONS: readonly VerdictReason[] = [
  VerdictReason.ACCEPTED,
  VerdictReason.NO_IMPROVEMENT,
  VerdictReason.NOT_TRAINED_ON_ASSIGNED,
];

/**
 * Computes a verdict again from its replay bundle and names every number that differs. The losses are taken from the bundle; who has
 * the payload and the base state can measure them again. Verdicts of the cheap checks carry no losses and have nothing to replay.
 */
export function replayVerdict(
  bundle: ExplainScoreResponse,
  rules: JudgeRules = JUDGE_RULES,
  copyRules: CopyRules = COPY_RULES,
): Replay {
  const verdict = bundle.verdict;
  if (verdict === undefined) return fail("the bundle has no verdict");
  if (verdict.reason === VerdictReason.COPY) {
    const agrees = verdict.overlapWith !== "" && verdict.overlap > 0;
    const below = verdict.overlap < copyRules.overlapMax;
    const note = below ? ["overlap is below the threshold; similarity decided"] : [];
    return {
      agrees,
      differences: agrees ? note : ["no earlier update is named"],
      judgement: undefined,
    };
  }
  if (!EVIDENCE_REASONS.includes(verdict.reason) || bundle.assignedBefore.length === 0) {
    return { agrees: true, differences: [], judgement: undefined };
  }
  const none = { overlap: 0, overlapWith: "", similarity: 0, copy: false };
  const judgement = judgeUpdate(none, bundle, bundle.typicalImprovement, rules);
  const differences: string[] = [];
  const compare = (name: string, got: number, claimed: number) => {
    if (got !== claimed) differences.push(`${name} is ${got}, the verdict says ${claimed}`);
  };
  compare("reason", judgement.reason, verdict.reason);
  compare("assigned improvement", judgement.assignedImprovement, verdict.assignedImprovement);
  compare("unassigned improvement", judgement.unassignedImprovement, verdict.unassignedImprovement);
  compare("confidence", judgement.confidence, verdict.confidence);
  return { agrees: differences.length === 0, differences, judgement };
}

function fail(text: string): Replay {
  return { agrees: false, differences: [text], judgement: undefined };
}
