// One worker's life: ask for work, generate, commit, wait for the challenge, open, hear the verdict.
import { create } from "@bufbuild/protobuf";
import { bytesEqual, type Hotkey } from "@covenant/contracts";
import {
  type GroupAssignment,
  type RolloutContract,
  type Rollouts,
  SubmitGroupsRequestSchema,
} from "@covenant/contracts/grail";
import { contractFault, reasonName } from "@covenant/grail";
import type { Ledger } from "@covenant/ledger";
import {
  type Clock,
  CovenantError,
  type createClient,
  fromUnknown,
  type Logger,
} from "@covenant/runtime";
import { type GeneratedGroup, generateGroups, openGroup } from "../learn/generate-group.ts";
import type { RegistryClient } from "../pipeline/context.ts";
import type { WorkerConfig } from "./config.ts";
import { generatingRoot, type WorkerEngine } from "./engine.ts";

/** A client of grail-rl. */
export type RolloutsClient = ReturnType<typeof createClient<typeof Rollouts>>;

/** Collaborators of the loop. */
export interface WorkerModules {
  rollouts: RolloutsClient;
  registry: RegistryClient;
  ledger: Pick<Ledger, "randomness" | "waitForBlock">;
  engine: WorkerEngine;
  hotkey: Hotkey;
  clock: Clock;
  logger: Logger;
}

/** Pause after a failed round, and the longest one after many. */
const backoffMs = 250;
const backoffMaxMs = 5000;

interface Work {
  contract: RolloutContract;
  assignments: GroupAssignment[];
}

/** Works until post-training is over or the signal aborts. Failures of others are waited out. */
export async function runWorker(
  options: WorkerConfig,
  modules: WorkerModules,
  signal: AbortSignal,
): Promise<void> {
  const { clock, logger } = modules;
  let failures = 0;
  while (!signal.aborted) {
    try {
      const pauseMs = await round(options, modules, signal);
      if (pauseMs === undefined) return;
      failures = 0;
      if (pauseMs > 0) await clock.sleep(pauseMs, signal);
    } catch (error) {
      if (signal.aborted) return;
      const known = fromUnknown(error);
      failures++;
      logger.warn({ code: known.code, failures, reason: known.message }, "round failed");
      const pauseMs = Math.min(backoffMaxMs, backoffMs * 2 ** Math.min(failures, 10));
      await clock.sleep(pauseMs, signal).catch(() => undefined);
    }
  }
}

/** One round; returns how long to pause, or undefined when there will be no more work. */
async function round(
  options: WorkerConfig,
  modules: WorkerModules,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { rollouts } = modules;
  const response = await rollouts.getContract({ capacity: options.capacity }, { signal });
  if (response.finished && options.exitWhenFinished) return undefined;
  const { contract, assignments } = response;
  if (contract === undefined || assignments.length === 0) return response.retryAfterMs || backoffMs;
  await checkContract(contract, modules.ledger);
  const groups = await generate(options, modules, { contract, assignments }, signal);
  const committed: { group: GeneratedGroup; challengeBlock: number }[] = [];
  for (const group of groups) {
    const { challengeBlock } = await rollouts.commitGroup(group.commit, { signal });
    committed.push({ group, challengeBlock: Number(challengeBlock) });
  }
  await openAll(modules, committed, signal);
  for (const { group } of committed) await hearVerdict(modules, group.commit.groupId, signal);
  return 0;
}

/** Nobody works for a contract whose beacon the ledger does not confirm. */
async function checkContract(
  contract: RolloutContract,
  ledger: Pick<Ledger, "randomness">,
): Promise<void> {
  const fault =
    contractFault(contract) ??
    (bytesEqual(await ledger.randomness(Number(contract.beaconBlock)), contract.beacon)
      ? undefined
      : "The beacon is not the ledger's randomness of its block.");
  if (fault !== undefined) {
    throw new CovenantError("COV_FAILED_PRECONDITION", fault, {
      metadata: { contractId: contract.contractId },
    });
  }
}

async function generate(
  options: WorkerConfig,
  modules: WorkerModules,
  work: Work,
  signal: AbortSignal,
): Promise<GeneratedGroup[]> {
  const { engine, registry, hotkey, logger, clock } = modules;
  const root = await generatingRoot(work.contract.checkpointRoot, options, registry, signal);
  const { model, tokenizer } = await engine.load(root, signal);
  const startedMs = clock.nowMs();
  const groups = await generateGroups(model, tokenizer, work, hotkey, signal);
  logger.info(
    {
      contractId: work.contract.contractId,
      groups: groups.length,
      durationMs: clock.nowMs() - startedMs,
    },
    "groups generated",
  );
  return groups;
}

async function openAll(
  modules: WorkerModules,
  committed: readonly { group: GeneratedGroup; challengeBlock: number }[],
  signal: AbortSignal,
): Promise<void> {
  const { ledger, rollouts } = modules;
  await ledger.waitForBlock(Math.max(...committed.map((one) => one.challengeBlock)), signal);
  const challenges = new Map<number, Uint8Array>();
  for (const { challengeBlock } of committed) {
    if (challenges.has(challengeBlock)) continue;
    challenges.set(challengeBlock, await ledger.randomness(challengeBlock));
  }
  const requests = committed.map(({ group, challengeBlock }) =>
    create(SubmitGroupsRequestSchema, {
      groupId: group.commit.groupId,
      completions: openGroup(group, challenges.get(challengeBlock)!),
    }),
  );
  await rollouts.submitGroups(streamOf(requests), { signal });
}

async function* streamOf<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

async function hearVerdict(
  { rollouts, logger }: WorkerModules,
  groupId: string,
  signal: AbortSignal,
): Promise<void> {
  while (true) {
    const { verdict } = await rollouts.getVerdict({ groupId }, { signal });
    if (verdict === undefined || verdict.reason === 0) continue;
    const { accepted, explanation, rewards } = verdict;
    const reason = reasonName(verdict.reason);
    logger.info({ groupId, accepted, reason, explanation, rewards }, "verdict");
    return;
  }
}
