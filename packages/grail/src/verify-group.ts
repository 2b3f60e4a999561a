import { verifyMessage } from "@covenant/contracts";
import {
  type CommitGroupRequest,
  CommitGroupRequestSchema,
  type CompletionOpenings,
  type GroupAssignment,
  type ProofMeasurements,
  ProofReason,
  type RolloutContract,
} from "@covenant/contracts/grail";
import { statementKey } from "./check-commitment.ts";
import { type Finding, isVerified, refuse } from "./finding.ts";
import { judgeReplay, type ReplayResult } from "./judge-replay.ts";
import type { ProofThresholds } from "./thresholds.ts";
import { checkBeforeReplay, type ReplayRequest, replayRequest } from "./verify-completion.ts";

/** A group as it was delivered, and what it was asked to be. */
export interface GroupEvidence {
  contract: RolloutContract;
  assignment: GroupAssignment;
  /** Prompt of the assignment's episode, rendered by the verifier. */
  promptTokens: ArrayLike<number>;
  /** Whom the group was assigned to. */
  hotkey: string;
  commit: CommitGroupRequest;
  /** Head of the ledger when the commitment came in. */
  committedAtBlock: number;
  challengeBlock: number;
  challengeRandomness: Uint8Array;
  openings: readonly CompletionOpenings[];
}

/** What the verifier knows beyond the group itself. */
export interface GroupContext {
  vocabularySize: number;
  /** `statementKey` of every completion accepted before. */
  acceptedStatements: ReadonlySet<string>;
  thresholds: ProofThresholds;
}

/** Outcome for a group: the worst completion decides. */
export interface GroupFinding extends Finding {
  /** One entry for each completion that was replayed. */
  completions: ProofMeasurements[];
}

/** Who says it, for which contract and assignment, in time and in the right number. */
function checkFrame(evidence: GroupEvidence): Finding | undefined {
  const { commit, contract, assignment } = evidence;
  const signed = commit.signature?.hotkey === evidence.hotkey;
  if (!signed || !verifyMessage(CommitGroupRequestSchema, commit)) {
    return refuse(ProofReason.BAD_SIGNATURE, `The group is not signed by ${evidence.hotkey}.`);
  }
  if (commit.contractId !== contract.contractId || commit.groupId !== assignment.groupId) {
    return refuse(
      ProofReason.WRONG_CONTRACT,
      "The group belongs to another contract or assignment.",
    );
  }
  if (BigInt(evidence.committedAtBlock) > contract.deadlineBlock) {
    return refuse(
      ProofReason.LATE,
      `Committed at block ${evidence.committedAtBlock}, after ${contract.deadlineBlock}.`,
    );
  }
  if (evidence.challengeBlock <= evidence.committedAtBlock) {
    return refuse(ProofReason.LATE, "The challenge was known before the commitment came in.");
  }
  const counts = [commit.completions.length, commit.claimedRewards.length];
  if (counts.some((count) => count !== contract.groupSize)) {
    return refuse(
      ProofReason.MALFORMED,
      `The group has ${counts[0]} completions and ${counts[1]} rewards, not ${contract.groupSize}.`,
    );
  }
  return undefined;
}

function checkDuplicates(
  evidence: GroupEvidence,
  accepted: ReadonlySet<string>,
): Finding | undefined {
  const seen = new Set<string>();
  for (const { statement } of evidence.commit.completions) {
    if (statement === undefined) continue;
    const key = statementKey(statement);
    if (seen.has(key) || accepted.has(key)) {
      return refuse(
        ProofReason.DUPLICATE,
        `Rollout index ${statement.rolloutIndex} of this prompt is delivered twice.`,
      );
    }
    seen.add(key);
  }
  return undefined;
}

/** All checks that need no model, cheapest first; undefined if the group is worth a replay. */
export function checkGroupBeforeReplay(
  evidence: GroupEvidence,
  context: GroupContext,
): Finding | undefined {
  const frame = checkFrame(evidence) ?? checkDuplicates(evidence, context.acceptedStatements);
  if (frame !== undefined) return frame;
  if (evidence.openings.length !== evidence.commit.completions.length) {
    return refuse(
      ProofReason.OPENING_MISMATCH,
      `${evidence.openings.length} of ${evidence.commit.completions.length} completions are opened.`,
    );
  }
  for (const [i, commitment] of evidence.commit.completions.entries()) {
    const opened = evidence.openings[i]!;
    const rolloutIndex = evidence.assignment.firstRolloutIndex + i;
    const finding = checkBeforeReplay(
      {
        claim: {
          contract: evidence.contract,
          environmentSeed: evidence.assignment.environmentSeed,
          promptTokens: evidence.promptTokens,
          rolloutIndex,
        },
        commitment,
        openings: opened.openings,
        challengeRandomness: evidence.challengeRandomness,
      },
      context.vocabularySize,
    );
    if (finding !== undefined) return prefixed(finding, rolloutIndex);
    if (opened.rolloutIndex !== rolloutIndex) {
      return refuse(
        ProofReason.OPENING_MISMATCH,
        "The openings are not in order of rollout index.",
      );
    }
  }
  return undefined;
}

/** Replays of a group that has passed `checkGroupBeforeReplay`, one for each completion. */
export function groupReplayRequests(evidence: GroupEvidence): ReplayRequest[] {
  return evidence.commit.completions.map(replayRequest);
}

/**
 * The verdict on a group: every check of `checkGroupBeforeReplay`, the replay of each completion, and
 * the rewards as the verifier computed them. One false completion refuses the group.
 */
export function verifyGroup(
  evidence: GroupEvidence,
  replays: readonly ReplayResult[],
  rewards: readonly number[],
  context: GroupContext,
): GroupFinding {
  const early = checkGroupBeforeReplay(evidence, context);
  if (early !== undefined) return { ...early, completions: [] };
  const findings = evidence.commit.completions.map((commitment, i) =>
    judgeReplay(commitment, evidence.openings[i]!.openings, replays[i]!, context.thresholds),
  );
  const completions = findings.map((finding) => finding.measurements!);
  const failed = findings.findIndex((finding) => !isVerified(finding));
  if (failed >= 0) {
    const rolloutIndex = evidence.assignment.firstRolloutIndex + failed;
    return { ...prefixed(findings[failed]!, rolloutIndex), completions };
  }
  const tolerance = context.thresholds.rewardToleranceMax;
  const wrong = evidence.commit.claimedRewards.findIndex(
    (claimed, i) => !(Math.abs(claimed - rewards[i]!) <= tolerance),
  );
  if (wrong >= 0) {
    const claimed = evidence.commit.claimedRewards[wrong];
    return {
      ...refuse(
        ProofReason.WRONG_REWARD,
        `Reward ${claimed} is claimed where the grader gives ${rewards[wrong]}.`,
      ),
      completions,
    };
  }
  const agree = completions.reduce((sum, one) => sum + one.sampledAgree, 0);
  const total = completions.reduce((sum, one) => sum + one.sampledTotal, 0);
  return {
    reason: ProofReason.VERIFIED,
    explanation: `${agree} of ${total} draws agree.`,
    completions,
  };
}

function prefixed(finding: Finding, rolloutIndex: number): Finding {
  return { ...finding, explanation: `Rollout ${rolloutIndex}: ${finding.explanation}` };
}
