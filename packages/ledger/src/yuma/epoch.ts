import { bondWeights, loadBonds, stepBonds } from "./bonds.ts";
import {
  add,
  div,
  type Fixed,
  fromInteger,
  min,
  mul,
  normalise,
  normaliseStake,
  proportionFromU16,
  proportionToU16,
  shareOf,
  sum,
  ZERO,
} from "./fixed.ts";
import { consensusWeights } from "./median.ts";
import {
  mapEntries,
  normaliseRows,
  rowSums,
  type SparseMatrix,
  timesVector,
  weightedColumnSums,
} from "./sparse.ts";
import type { StoredRow, YumaInput, YumaResult } from "./types.ts";

/**
 * One Yuma epoch: stakes, weights and bonds in; consensus, incentive, dividends, permits, new bonds
 * and shares of the emission out. Pure, integers only, equal to Subtensor's runtime in every u16.
 * Cost grows with neurons × validators; a subnet of 256 neurons takes well under a second.
 */
export function runEpoch(input: YumaInput): YumaResult {
  const { parameters } = input;
  const size = input.stakesRao.length;
  checkLengths(input, size);
  const active = input.lastUpdateBlocks.map(
    (block) => block + parameters.activityCutoffBlocks >= input.block,
  );
  const stake = normaliseStake(
    input.stakesRao.map((rao, uid) =>
      rao < parameters.stakeThresholdRao && uid !== input.ownerUid ? 0n : rao,
    ),
  );
  const oldPermits = input.validatorPermits.map((permit, uid) => permit || uid === input.ownerUid);
  const newPermits = validatorPermits(stake, parameters.maxValidators, input.ownerUid);
  const activeStake = normalise(
    stake.map((value, uid) => (active[uid] && oldPermits[uid] ? value : ZERO)),
  );
  const weights = countedWeights(input, oldPermits);
  const consensus = consensusWeights(weights, activeStake, proportionFromU16(parameters.kappa));
  const clipped = mapEntries(weights, (weight, _row, column) =>
    consensus[column] === ZERO ? undefined : min(weight, consensus[column]!),
  );
  const incentive = normalise(weightedColumnSums(clipped, activeStake));
  const bonds = stepBonds(
    bondWeights(weights, clipped, parameters.bondsPenalty),
    loadBonds(
      input.bonds,
      parameters.yuma3,
      (column) => input.registeredAtBlocks[column]! < input.lastEpochBlock,
    ),
    activeStake,
    consensus,
    parameters,
  );
  const earned = timesVector(bonds.shares, incentive);
  const dividends = normalise(
    parameters.yuma3 ? earned.map((value, uid) => mul(activeStake[uid]!, value)) : earned,
  );
  return {
    active,
    stakeWeight: stake.map(proportionToU16),
    consensus: consensus.map(proportionToU16),
    incentive: incentive.map(proportionToU16),
    dividends: dividends.map(proportionToU16),
    validatorTrust: rowSums(clipped).map(proportionToU16),
    validatorPermit: newPermits,
    bonds: storedBonds(bonds.stored, input.bonds, oldPermits, newPermits),
    ...emissionShares(incentive, dividends, activeStake, stake),
  };
}

/** Rao paid for a share of an epoch's emission: floored, so the sum never exceeds the emission. */
export function emissionOf(share: bigint, emissionRao: bigint): bigint {
  return shareOf(share, emissionRao);
}

function checkLengths(input: YumaInput, size: number): void {
  for (const list of [
    input.lastUpdateBlocks,
    input.registeredAtBlocks,
    input.validatorPermits,
    input.weights,
    input.bonds,
  ]) {
    if (list.length !== size)
      throw new RangeError("every list of a subnet has one entry per neuron");
  }
}

/** The largest stakes get a permit; among equals the higher uid wins, as the stable sort has it. */
function validatorPermits(
  stake: readonly Fixed[],
  maxValidators: number,
  ownerUid: number | undefined,
): boolean[] {
  const permits = stake.map((value) => value !== ZERO);
  const ascending = stake.map((_value, uid) => uid).sort((a, b) => compare(stake[a]!, stake[b]!));
  const surplus = Math.max(0, stake.length - maxValidators);
  for (const uid of ascending.slice(0, surplus)) permits[uid] = false;
  if (ownerUid !== undefined && ownerUid < permits.length) permits[ownerUid] = true;
  return permits;
}

function compare(a: bigint, b: bigint): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** Weights that count: of permitted validators, not on oneself, not older than the named neuron. */
function countedWeights(input: YumaInput, permits: readonly boolean[]): SparseMatrix {
  const rows: SparseMatrix = input.weights.map((row, uid) => {
    const kept = permits[uid] ? row : [];
    return new Map(
      kept
        .filter(([column]) => column !== uid || uid === input.ownerUid)
        .map(([column, value]) => [column, fromInteger(value)]),
    );
  });
  const current = mapEntries(rows, (value, row, column) => {
    const registered = input.registeredAtBlocks[column]!;
    if (input.lastUpdateBlocks[row]! <= registered) return undefined;
    const committed = input.oldestCommitBlocks?.[row];
    return committed !== undefined && committed < registered ? undefined : value;
  });
  return normaliseRows(current);
}

/** New rows for permitted validators, cleared rows for those that lost the permit. */
function storedBonds(
  next: SparseMatrix,
  previous: readonly StoredRow[],
  oldPermits: readonly boolean[],
  newPermits: readonly boolean[],
): StoredRow[] {
  return next.map((row, uid) => {
    if (newPermits[uid]) return [...row].map(([column, value]) => [column, proportionToU16(value)]);
    return oldPermits[uid] ? [] : previous[uid]!;
  });
}

function emissionShares(
  incentive: readonly Fixed[],
  dividends: readonly Fixed[],
  activeStake: readonly Fixed[],
  stake: readonly Fixed[],
): Pick<YumaResult, "serverShares" | "validatorShares" | "combinedShares"> {
  const total = add(sum(incentive), sum(dividends));
  if (total === ZERO) {
    const fallback = activeStake.some((value) => value > ZERO) ? [...activeStake] : [...stake];
    return {
      serverShares: stake.map(() => ZERO),
      validatorShares: fallback,
      combinedShares: fallback,
    };
  }
  return {
    serverShares: incentive.map((value) => div(value, total)),
    validatorShares: dividends.map((value) => div(value, total)),
    combinedShares: incentive.map((value, uid) => div(add(value, dividends[uid]!), total)),
  };
}
