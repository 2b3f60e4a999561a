// Verdicts on submitted groups: cheap checks first, then all of them in one replay.
import { create, fromBinary } from "@bufbuild/protobuf";
import {
  CommitGroupRequestSchema,
  type GroupVerdict,
  GroupVerdictSchema,
  ProofReason,
  type RolloutContract,
  SubmitGroupsRequestSchema,
} from "@covenant/contracts/grail";
import {
  buildAssignment,
  checkGroupBeforeReplay,
  type Environment,
  type GroupContext,
  type GroupEvidence,
  type GroupFinding,
  groupReplayRequests,
  type ProofThresholds,
  type ReplayResult,
  reasonName,
  statementKey,
  verifyGroup,
} from "@covenant/grail";
import type { Model } from "@covenant/kernels";
import type { Tokenizer } from "@covenant/models";
import { promptTokens, rewardOf } from "../learn/prompts.ts";
import type { GroupRow } from "../state/store.ts";

/** What a verifier of one contract works with. */
export interface VerifierModules {
  model: Pick<Model, "replay" | "shape">;
  tokenizer: Tokenizer;
  environment: Environment;
  ledger: { randomness(block: number): Promise<Uint8Array> };
}

/** A verdict with the name that reports count it under. */
export interface NamedVerdict {
  verdict: GroupVerdict;
  reason: string;
}

/**
 * Judges submitted groups of a contract with the weights that the contract names. `accepted` are the
 * contract's groups accepted before: a draw counts once. The rewards of a verdict are recomputed.
 */
export async function verifyGroups(
  contract: RolloutContract,
  submitted: readonly GroupRow[],
  accepted: readonly GroupRow[],
  thresholds: ProofThresholds,
  modules: VerifierModules,
): Promise<NamedVerdict[]> {
  const { model, tokenizer, environment } = modules;
  const acceptedStatements = new Set(accepted.flatMap(statementKeys));
  const context: GroupContext = {
    vocabularySize: model.shape.vocabSize,
    acceptedStatements,
    thresholds,
  };
  const all = await Promise.all(submitted.map((row) => evidenceOf(contract, row, modules)));
  const early = all.map((evidence) => checkGroupBeforeReplay(evidence, context));
  const sound = all.filter((_, i) => early[i] === undefined);
  const replays = await replayAll(contract, sound, model);
  return all.map((evidence, i) => {
    const rewards = evidence.commit.completions.map(({ completionTokens }) =>
      // Tokens that are not in the vocabulary have no text; such a group is refused anyway.
      early[i] === undefined
        ? rewardOf(tokenizer, environment, evidence.assignment.environmentSeed, completionTokens)
        : 0,
    );
    const own = replays.get(evidence) ?? [];
    const finding: GroupFinding = early[i]
      ? { ...early[i], completions: [] }
      : verifyGroup(evidence, own, rewards, context);
    return named(contract, submitted[i]!, finding, rewards);
  });
}

/** Keys of the draws in a committed group. */
export function statementKeys(row: GroupRow): string[] {
  if (row.commit === undefined) return [];
  const { completions } = fromBinary(CommitGroupRequestSchema, row.commit);
  return completions.flatMap(({ statement }) => (statement ? [statementKey(statement)] : []));
}

async function evidenceOf(
  contract: RolloutContract,
  row: GroupRow,
  { tokenizer, environment, ledger }: VerifierModules,
): Promise<GroupEvidence> {
  const assignment = buildAssignment(contract, row.slot, row.groupId);
  return {
    contract,
    assignment,
    promptTokens: promptTokens(tokenizer, environment, assignment.environmentSeed),
    hotkey: row.hotkey,
    commit: fromBinary(CommitGroupRequestSchema, row.commit!),
    committedAtBlock: row.committedAtBlock,
    challengeBlock: row.challengeBlock,
    challengeRandomness: await ledger.randomness(row.challengeBlock),
    openings: fromBinary(SubmitGroupsRequestSchema, row.openings!).completions,
  };
}

async function replayAll(
  contract: RolloutContract,
  groups: readonly GroupEvidence[],
  model: Pick<Model, "replay">,
): Promise<Map<GroupEvidence, ReplayResult[]>> {
  const replays = new Map<GroupEvidence, ReplayResult[]>();
  if (groups.length === 0) return replays;
  const results = await model.replay(groups.flatMap(groupReplayRequests), {
    fingerprint: { seed: contract.fingerprintSeed, dims: contract.fingerprintDims },
  });
  let at = 0;
  for (const group of groups) {
    const count = group.commit.completions.length;
    const own = results.slice(at, at + count);
    at += count;
    replays.set(
      group,
      own.map((result) => ({ ...result, fingerprints: result.fingerprints! })),
    );
  }
  return replays;
}

function named(
  contract: RolloutContract,
  row: GroupRow,
  finding: GroupFinding,
  rewards: number[],
): NamedVerdict {
  const accepted = finding.reason === ProofReason.VERIFIED;
  const verdict = create(GroupVerdictSchema, {
    groupId: row.groupId,
    hotkey: row.hotkey,
    accepted,
    reason: finding.reason,
    explanation: finding.explanation,
    measurements: finding.completions,
    rewards,
    policyVersion: contract.policyVersion,
  });
  return { verdict, reason: reasonName(finding.reason) };
}
