// Reinforcement as a phase: contract, groups, verdicts, one training step, next version.
import { rm } from "node:fs/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { fromHex } from "@covenant/contracts";
import {
  CommitGroupRequestSchema,
  GroupVerdictSchema,
  type RolloutContract,
} from "@covenant/contracts/grail";
import { CheckpointStage } from "@covenant/contracts/registry";
import { buildContract, exactThresholds, mean, selectGroups } from "@covenant/grail";
import type { TrainableModel } from "@covenant/kernels";
import { stopTokens, type Tokenizer } from "@covenant/models";
import { verifyGroups } from "../desk/verifier.ts";
import { type TrainingGroup, trainPolicy } from "../learn/policy-step.ts";
import type { GroupRow } from "../state/store.ts";
import { loadWeights, saveWeights } from "../state/weights-file.ts";
import { environmentOf, jobFile, loadTokenizer, type PhaseContext } from "./context.ts";
import { publish } from "./publish.ts";

/** How often deadlines are looked at while nothing else happens. */
const tickMs = 500;
/** After so many contracts of one version without a group that varies, the policy has converged. */
const flatContractsMax = 4;

interface Engines {
  policy: TrainableModel;
  reference: TrainableModel;
  tokenizer: Tokenizer;
}

/** The contract of the present version: the one that was issued, or a new one. */
async function contractOf(context: PhaseContext, tokenizer: Tokenizer): Promise<RolloutContract> {
  const { job, options, modules } = context;
  const { policy, rollouts } = options;
  const contractId = `${job.jobId}-v${job.policyVersion}-c${job.contractAttempt}`;
  const issued = await modules.store.contract(contractId);
  if (issued !== undefined) return issued.contract;
  const beaconBlock = await modules.ledger.headBlock();
  const contract = buildContract({
    contractId,
    runId: job.runId,
    policyVersion: job.policyVersion,
    checkpointRoot: fromHex(job.policyRoot),
    environment: options.environment,
    sampling: {
      temperature: 1,
      topK: 0,
      topP: 1,
      maxNewTokens: policy.maxNewTokens,
      stopTokenIds: stopTokens(tokenizer),
    },
    groupSize: policy.groupSize,
    beaconBlock,
    beacon: await modules.ledger.randomness(beaconBlock),
    deadlineBlock: beaconBlock + rollouts.contractBlocks,
  });
  await modules.store.saveContract(job.jobId, contract, policy.groupsPerVersion);
  return contract;
}

/** Verifies what was submitted; returns whether there was anything. */
async function settleSubmitted(
  context: PhaseContext,
  contract: RolloutContract,
  engines: Engines,
): Promise<boolean> {
  const { modules, options } = context;
  const groups = modules.desk.groups();
  const submitted = groups
    .filter((group) => group.phase === "submitted")
    .slice(0, options.rollouts.verifyBatchGroups);
  if (submitted.length === 0) return false;
  const accepted = groups.filter((group) => group.phase === "accepted");
  const verdicts = await verifyGroups(contract, submitted, accepted, exactThresholds, {
    model: engines.policy,
    tokenizer: engines.tokenizer,
    environment: environmentOf(options.environment),
    ledger: modules.ledger,
  });
  await modules.desk.settle(verdicts);
  modules.changes.notify();
  for (const { verdict, reason } of verdicts) {
    const { groupId, hotkey, explanation } = verdict;
    modules.logger.info({ groupId, hotkey, reason, explanation }, "group judged");
  }
  return true;
}

/** Runs the contract until all slots are filled with accepted groups, or its deadline. */
async function collect(
  context: PhaseContext,
  contract: RolloutContract,
  engines: Engines,
): Promise<GroupRow[]> {
  const { modules, options, signal } = context;
  const { desk, ledger } = modules;
  const slots = options.policy.groupsPerVersion;
  await desk.open({ jobId: context.job.jobId, contract, slots });
  try {
    while (true) {
      signal.throwIfAborted();
      const since = desk.changes.version;
      if (await settleSubmitted(context, contract, engines)) continue;
      await desk.expire();
      const groups = desk.groups();
      const accepted = groups.filter((group) => group.phase === "accepted");
      if (accepted.length >= slots) return accepted;
      const isLate = BigInt(await ledger.headBlock()) > contract.deadlineBlock;
      const inWork = groups.some((group) => ["committed", "submitted"].includes(group.phase));
      if (isLate && !inWork) return accepted;
      await desk.changes.changed(since, AbortSignal.any([signal, AbortSignal.timeout(tickMs)]));
    }
  } finally {
    desk.close();
  }
}

/** Accepted groups as the trainer takes them: verified tokens, recomputed rewards. */
function trainingGroups(rows: readonly GroupRow[]): TrainingGroup[] {
  return rows.map((row) => {
    const commit = fromBinary(CommitGroupRequestSchema, row.commit!);
    return {
      promptTokens: commit.completions[0]!.statement!.promptTokens,
      completions: commit.completions.map((completion) => completion.completionTokens),
      rewards: fromBinary(GroupVerdictSchema, row.verdict!).rewards,
    };
  });
}

/** One version: collects verified groups, trains on them, publishes the next version. */
async function runVersion(
  context: PhaseContext,
  engines: Engines,
): Promise<"trained" | "repeated" | "nothing to learn"> {
  const { job, options, modules } = context;
  const contract = await contractOf(context, engines.tokenizer);
  const rows = await collect(context, contract, engines);
  const groups = trainingGroups(rows);
  const selected = selectGroups(groups, options.policy.trainGroupsMax);
  const stepReward = mean(groups.flatMap((group) => group.rewards));
  if (selected.length < options.rollouts.minimumGroups) {
    // The same version again, with another beacon and other prompts, unless all groups keep agreeing.
    modules.logger.warn({ accepted: rows.length, selected: selected.length }, "contract repeated");
    const exhausted = rows.length > 0 && job.contractAttempt + 1 >= flatContractsMax;
    await context.update({ contractAttempt: job.contractAttempt + 1, stepReward });
    return exhausted ? "nothing to learn" : "repeated";
  }
  const report = await trainPolicy(engines.policy, engines.reference, selected, options.policy, {
    version: job.policyVersion,
    padToken: engines.tokenizer.eosId,
  });
  const version = job.policyVersion + 1;
  await saveWeights(jobFile(context, `policy-${version}.bin`), engines.policy, version);
  const policyRoot = await publish(context, engines.policy, {
    stage: CheckpointStage.POLICY,
    version,
    parentRoot: job.policyRoot,
    evaluation: { step_reward: stepReward },
  });
  await context.update({
    policyVersion: version,
    policyRoot,
    contractAttempt: 0,
    stepReward,
    loss: report.loss,
    kl: report.kl,
    entropy: report.entropy,
    clipShare: report.clipShare,
  });
  modules.logger.info({ version, stepReward, ...report }, "policy trained");
  // Version 0 stays: it is the reference. A version whose successor is recorded is not read again.
  if (version > 1) await rm(jobFile(context, `policy-${version - 1}.bin`), { force: true });
  return "trained";
}

/** Trains version after version. */
export async function runPolicy(context: PhaseContext): Promise<void> {
  const { options } = context;
  const { tokenizer } = await loadTokenizer(context);
  const { model: policy } = await loadWeights(
    jobFile(context, `policy-${context.job.policyVersion}.bin`),
    options,
    context.modules,
  );
  const { model: reference } = await loadWeights(
    jobFile(context, "policy-0.bin"),
    options,
    context.modules,
  );
  try {
    while (context.job.policyVersion < options.policy.versions) {
      const outcome = await runVersion(context, { policy, reference, tokenizer });
      if (outcome === "nothing to learn") break;
    }
  } finally {
    policy.close();
    reference.close();
  }
  await context.update({ phase: "releasing" });
}
