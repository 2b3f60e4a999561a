/** Judging updates: copies, loss evidence, verdicts, ratings, weights. Pure. */
export type { CopyFinding, CopyRules, UpdateFingerprint } from "./copies.ts";
export { COPY_RULES, findCopies } from "./copies.ts";
export type { Judgement, JudgeRules, LossEvidence } from "./judge.ts";
export {
  isUndecided,
  JUDGE_RULES,
  judgeUpdate,
  overallImprovement,
  typicalImprovement,
} from "./judge.ts";
export type { Placement, Rating } from "./rating.ts";
export { INITIAL_RATING, ordinalOf, rateMatch } from "./rating.ts";
export { indicatorOf, reasonName, reasonOfProblem } from "./reasons.ts";
export type { Replay } from "./replay.ts";
export { replayVerdict } from "./replay.ts";
export type { GauntletState, PeerRecord, PeerScore, RoundResult } from "./state.ts";
export {
  applyRound,
  finalScoreOf,
  initialGauntletState,
  isAmnesty,
  scorecard,
} from "./state.ts";
export type { PairedEstimate } from "./statistics.ts";
export { difference, estimate, pairedImprovement, studentQuantile } from "./statistics.ts";
export type { WeightRules, WeightShares } from "./weights.ts";
export { computeWeights, WEIGHT_RULES } from "./weights.ts";
