import { ss58Decode, toHex } from "@covenant/contracts";
import { blake2b } from "@noble/hashes/blake2.js";
import { type BlockContext, emit, neuronOf, subnetOf } from "./context.ts";
import { ensure, ModuleError } from "./errors.ts";
import type { Address, ChainParameters, SubnetState, WeightCommit } from "./types.ts";
import { applyWeights, ensureStake } from "./weights.ts";

/** Most unrevealed commitments of one hotkey. */
export const UNREVEALED_COMMITS_MAX = 10;
/** The only version of the timelocked form. */
export const COMMIT_REVEAL_VERSION = 4;

/** What is hashed into a weights commitment and shown at its reveal. */
export interface RevealedWeights {
  netuid: number;
  uids: readonly number[];
  values: readonly number[];
  salt: readonly number[];
  versionKey: number;
}

/**
 * blake2-256 (hexadecimal) of the SCALE tuple (hotkey AccountId32, netuid u16, uids Vec<u16>,
 * values Vec<u16>, salt Vec<u16>, versionKey u64): the form that Subtensor verifies.
 */
export function weightsCommitHash(hotkey: Address, revealed: RevealedWeights): string {
  const bytes = [
    ...ss58Decode(hotkey),
    ...littleEndian(revealed.netuid, 2),
    ...scaleVector(revealed.uids),
    ...scaleVector(revealed.values),
    ...scaleVector(revealed.salt),
    ...littleEndian(revealed.versionKey, 8),
  ];
  return toHex(blake2b(Uint8Array.from(bytes), { dkLen: 32 }));
}

/** Commits to weights by hash; they can be revealed in exactly one later epoch. */
export function commitWeights(
  context: BlockContext,
  hotkey: Address,
  args: { netuid: number; commitHash: string },
): void {
  const subnet = subnetOf(context.state, args.netuid);
  const { neuron } = ensureMayCommit(context, subnet, hotkey);
  const live = liveCommits(subnet, hotkey);
  ensure(live.length < UNREVEALED_COMMITS_MAX, "TooManyUnrevealedCommits");
  const commit = { hash: args.commitHash, epoch: subnet.epochIndex, block: context.block };
  subnet.weightCommits.set(hotkey, [...live, commit]);
  neuron.lastUpdateBlock = context.block;
  emit(context, "WeightsCommitted", { netuid: args.netuid, hotkey, hash: args.commitHash });
}

/** Reveals committed weights. Earlier commitments of the same hotkey are void afterwards. */
export function revealWeights(context: BlockContext, hotkey: Address, args: RevealedWeights): void {
  const subnet = subnetOf(context.state, args.netuid);
  ensure(subnet.hyperparameters.commitRevealEnabled, "CommitRevealDisabled");
  const all = subnet.weightCommits.get(hotkey) ?? [];
  ensure(all.length > 0, "NoWeightsCommitFound");
  const hash = weightsCommitHash(hotkey, args);
  const live = liveCommits(subnet, hotkey);
  const position = live.findIndex((commit) => commit.hash === hash);
  if (position < 0) {
    const expired = all.some((commit) => commit.hash === hash);
    if (expired) throw new ModuleError("ExpiredWeightCommit");
    throw new ModuleError(
      live.length === 0 ? "NoWeightsCommitFound" : "InvalidRevealCommitHashNotMatch",
    );
  }
  const revealEpoch = live[position]!.epoch + subnet.hyperparameters.revealPeriodEpochs;
  ensure(subnet.epochIndex === revealEpoch, "RevealTooEarly", `wait for epoch ${revealEpoch}`);
  applyWeights(context, hotkey, { ...args, weights: args.values });
  setCommits(subnet, hotkey, live.slice(position + 1));
  emit(context, "WeightsRevealed", { netuid: args.netuid, hotkey, hash });
}

/** Commits to weights that the chain sets by itself; the payload is plain, only the delay is real. */
export function commitTimelockedWeights(
  context: BlockContext,
  hotkey: Address,
  args: {
    netuid: number;
    uids: readonly number[];
    values: readonly number[];
    versionKey: number;
    revealRound: number;
    commitRevealVersion: number;
  },
): void {
  const subnet = subnetOf(context.state, args.netuid);
  const { netuid, commitRevealVersion, ...payload } = args;
  const { neuron } = ensureMayCommit(context, subnet, hotkey);
  ensure(commitRevealVersion === COMMIT_REVEAL_VERSION, "IncorrectCommitRevealVersion");
  const round = roundAt(context.state.parameters, context.timeMs);
  ensure(args.revealRound > round, "InvalidRevealRound", `round ${round} has passed`);
  const own = subnet.timelockedCommits.filter((commit) => commit.hotkey === hotkey);
  ensure(own.length < UNREVEALED_COMMITS_MAX, "TooManyUnrevealedCommits");
  subnet.timelockedCommits = [
    ...subnet.timelockedCommits,
    { ...payload, hotkey, epoch: subnet.epochIndex, block: context.block },
  ];
  neuron.lastUpdateBlock = context.block;
  emit(context, "TimelockedWeightsCommitted", { netuid, hotkey, revealRound: args.revealRound });
}

/** Sets the timelocked weights whose epoch and round have come; drops those whose epoch is over. */
export function revealTimelocked(context: BlockContext, subnet: SubnetState): void {
  if (subnet.timelockedCommits.length === 0) return;
  const round = roundAt(context.state.parameters, context.timeMs);
  const { netuid } = subnet;
  subnet.timelockedCommits = subnet.timelockedCommits.filter((commit) => {
    const revealEpoch = commit.epoch + subnet.hyperparameters.revealPeriodEpochs;
    if (subnet.epochIndex < revealEpoch) return true;
    if (subnet.epochIndex === revealEpoch && commit.revealRound > round) return true;
    const { hotkey, uids, values, versionKey } = commit;
    try {
      ensure(subnet.epochIndex === revealEpoch, "ExpiredWeightCommit");
      applyWeights(context, hotkey, { netuid, uids, weights: values, versionKey });
      emit(context, "TimelockedWeightsRevealed", { netuid, hotkey });
    } catch (error) {
      if (!(error instanceof ModuleError)) throw error;
      emit(context, "TimelockedWeightsDropped", { netuid, hotkey, error: error.errorName });
    }
    return false;
  });
}

/** Forgets hash commitments whose reveal epoch has passed. */
export function dropExpiredCommits(subnet: SubnetState): void {
  // The previous epoch's are kept for one epoch more, so that a late reveal hears "expired".
  for (const [hotkey, commits] of subnet.weightCommits) {
    const period = subnet.hyperparameters.revealPeriodEpochs;
    const kept = commits.filter((commit) => subnet.epochIndex <= commit.epoch + period + 1);
    if (kept.length !== commits.length) setCommits(subnet, hotkey, kept);
  }
}

/** Block of a hotkey's oldest commitment that can still be revealed. */
export function oldestCommitBlock(subnet: SubnetState, hotkey: Address): number | undefined {
  const blocks = [
    ...liveCommits(subnet, hotkey),
    ...subnet.timelockedCommits.filter((commit) => commit.hotkey === hotkey),
  ].map((commit) => commit.block);
  return blocks.length === 0 ? undefined : Math.min(...blocks);
}

/** The timelock clock's round at a unix time; 0 before its genesis. */
export function roundAt(parameters: ChainParameters, timeMs: number): number {
  const elapsedMs = timeMs - parameters.roundGenesisMs;
  return elapsedMs < 0 ? 0 : Math.floor(elapsedMs / parameters.roundPeriodMs) + 1;
}

function ensureMayCommit(context: BlockContext, subnet: SubnetState, hotkey: Address) {
  const rules = subnet.hyperparameters;
  ensure(rules.commitRevealEnabled, "CommitRevealDisabled");
  const found = neuronOf(subnet, hotkey);
  ensureStake(subnet, hotkey);
  const elapsed = context.block - found.neuron.lastUpdateBlock;
  ensure(elapsed >= rules.weightsRateLimitBlocks, "CommittingWeightsTooFast", `${elapsed} blocks`);
  return found;
}

function liveCommits(subnet: SubnetState, hotkey: Address): readonly WeightCommit[] {
  const period = subnet.hyperparameters.revealPeriodEpochs;
  const commits = subnet.weightCommits.get(hotkey) ?? [];
  return commits.filter((commit) => subnet.epochIndex <= commit.epoch + period);
}

function setCommits(subnet: SubnetState, hotkey: Address, commits: readonly WeightCommit[]): void {
  if (commits.length === 0) subnet.weightCommits.delete(hotkey);
  else subnet.weightCommits.set(hotkey, commits);
}

function littleEndian(value: number, bytes: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, BigInt(value), true);
  return new Uint8Array(view.buffer, 0, bytes);
}

/** SCALE Vec<u16>: compact length, then little-endian values. */
function scaleVector(values: readonly number[]): number[] {
  return [
    ...compactLength(values.length),
    ...values.flatMap((value) => [...littleEndian(value, 2)]),
  ];
}

function compactLength(length: number): Uint8Array {
  if (length < 1 << 6) return Uint8Array.of(length << 2);
  if (length < 1 << 14) return littleEndian((length << 2) | 1, 2);
  return littleEndian((length << 2) | 2, 4);
}
