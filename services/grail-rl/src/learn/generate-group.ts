// What a rollout worker does for one contract: generate, record, commit.
import { create } from "@bufbuild/protobuf";
import { type Hotkey, signMessage } from "@covenant/contracts";
import {
  type CommitGroupRequest,
  CommitGroupRequestSchema,
  type CompletionOpenings,
  type GroupAssignment,
  ProofStatementSchema,
  type RolloutContract,
  type TokenRecord,
} from "@covenant/contracts/grail";
import {
  commitCompletion,
  expectedStatement,
  findEnvironment,
  openCompletion,
  samplingSeed,
  tokenRecords,
} from "@covenant/grail";
import type { Model } from "@covenant/kernels";
import type { Tokenizer } from "@covenant/models";
import { promptTokens, rewardOf } from "./prompts.ts";

/** A generated group: the signed commitment, and the records that openings are made of. */
export interface GeneratedGroup {
  commit: CommitGroupRequest;
  records: TokenRecord[][];
}

/**
 * Generates all completions of the assignments in one batch and commits to them. What the engine
 * draws follows from contract, prompt and rollout index: a second run gives the same groups.
 * Throws a RangeError on a contract for an environment that is not known here.
 */
export async function generateGroups(
  model: Pick<Model, "generate">,
  tokenizer: Tokenizer,
  work: { contract: RolloutContract; assignments: readonly GroupAssignment[] },
  hotkey: Hotkey,
  signal?: AbortSignal,
): Promise<GeneratedGroup[]> {
  const { contract, assignments } = work;
  const environment = findEnvironment(contract.environment);
  if (environment === undefined) {
    throw new RangeError(`The environment ${contract.environment} is not known here.`);
  }
  const sampling = contract.sampling!;
  const statements = assignments.flatMap((assignment) => {
    const prompt = promptTokens(tokenizer, environment, assignment.environmentSeed);
    return Array.from({ length: contract.groupSize }, (_, i) =>
      create(
        ProofStatementSchema,
        expectedStatement({
          contract,
          environmentSeed: assignment.environmentSeed,
          promptTokens: prompt,
          rolloutIndex: assignment.firstRolloutIndex + i,
        }),
      ),
    );
  });
  const completions = await model.generate(
    statements.map((statement) => ({
      prompt: Int32Array.from(statement.promptTokens),
      maxNewTokens: sampling.maxNewTokens,
      temperature: sampling.temperature,
      topK: sampling.topK,
      topP: sampling.topP,
      stopTokens: [...sampling.stopTokenIds],
      samplingSeed: samplingSeed(statement),
    })),
    {
      fingerprint: { seed: contract.fingerprintSeed, dims: contract.fingerprintDims },
      ...(signal === undefined ? {} : { signal }),
    },
  );
  return assignments.map((assignment, g) => {
    const first = g * contract.groupSize;
    const group = completions.slice(first, first + contract.groupSize);
    const records = group.map((completion) =>
      tokenRecords(
        { ...completion, fingerprints: completion.fingerprints! },
        contract.fingerprintDims,
      ),
    );
    const commit = create(CommitGroupRequestSchema, {
      groupId: assignment.groupId,
      contractId: contract.contractId,
      completions: records.map((list, i) => commitCompletion(statements[first + i]!, list)),
      claimedRewards: group.map((completion) =>
        rewardOf(tokenizer, environment, assignment.environmentSeed, completion.tokens),
      ),
    });
    commit.signature = signMessage(CommitGroupRequestSchema, commit, hotkey);
    return { commit, records };
  });
}

/** Answers the challenge for a whole group. */
export function openGroup(group: GeneratedGroup, challenge: Uint8Array): CompletionOpenings[] {
  return group.commit.completions.map((commitment, i) =>
    openCompletion(commitment, group.records[i]!, challenge),
  );
}
