import { type BlockContext, changeStake, emit } from "./context.ts";
import { runSubnetEpoch } from "./epoch.ts";
import type { ChainState, SubnetState } from "./types.ts";

const U16_MAX = 65_535n;

/** True when blocks create emission for this subnet: started, subtoken on, registration open. */
export function isEmitting(subnet: SubnetState, block: number): boolean {
  return (
    subnet.startedAtBlock !== undefined &&
    subnet.startedAtBlock < block &&
    subnet.subtokenEnabled &&
    subnet.hyperparameters.registrationAllowed
  );
}

/** Creates one block's emission: owner cut first, the rest half to miners, half to validators. */
export function accrueEmission(state: ChainState, subnet: SubnetState, block: number): void {
  if (!isEmitting(subnet, block)) return;
  const { emissionPerBlockRao, ownerCut } = subnet.hyperparameters;
  const ownerRao = (emissionPerBlockRao * BigInt(ownerCut)) / U16_MAX;
  const restRao = emissionPerBlockRao - ownerRao;
  const serverRao = restRao / 2n;
  subnet.pendingOwnerRao += ownerRao;
  subnet.pendingServerRao += serverRao;
  subnet.pendingValidatorRao += restRao - serverRao;
  state.issuance.emittedRao += emissionPerBlockRao;
}

/** The first block in which the subnet's next epoch may run. */
export function nextEpochBlock(subnet: SubnetState): number {
  const scheduled = subnet.lastEpochBlock + subnet.hyperparameters.tempo;
  const triggered = subnet.triggeredEpochBlock;
  return triggered === undefined ? scheduled : Math.min(scheduled, triggered);
}

/** Runs the epochs that are due, the longest waiting first, up to the chain's cap per block. */
export function runDueEpochs(context: BlockContext): void {
  const due = [...context.state.subnets.values()]
    .filter((subnet) => nextEpochBlock(subnet) <= context.block)
    .sort((a, b) => nextEpochBlock(a) - nextEpochBlock(b) || a.netuid - b.netuid);
  for (const subnet of due.slice(0, context.state.parameters.maxEpochsPerBlock)) {
    const shares = runSubnetEpoch(subnet, context.block);
    payEpoch(context, subnet, shares);
    subnet.lastEpochBlock = context.block;
    subnet.epochIndex += 1;
    delete subnet.triggeredEpochBlock;
  }
}

/**
 * Pays what is pending: the owner's cut in full, miners and validators by floored shares. What the
 * floors leave over stays pending, so nothing is lost and nothing is created.
 */
function payEpoch(
  context: BlockContext,
  subnet: SubnetState,
  shares: { minerRao: bigint[]; validatorRao: bigint[]; poolRao: bigint },
): void {
  const { issuance } = context.state;
  let minersRao = 0n;
  let validatorsRao = 0n;
  let withheldRao = 0n;
  for (const [uid, neuron] of subnet.neurons.entries()) {
    const minerRao = shares.minerRao[uid]!;
    if (neuron.coldkey === subnet.ownerColdkey) withheldRao += minerRao;
    else {
      minersRao += minerRao;
      if (minerRao > 0n) changeStake(subnet, neuron.hotkey, neuron.coldkey, minerRao);
    }
    validatorsRao += shares.validatorRao[uid]!;
    payDividends(subnet, neuron.hotkey, neuron.coldkey, shares.validatorRao[uid]!);
  }
  if (subnet.hyperparameters.recycleOwnerEmission) issuance.recycledRao += withheldRao;
  else issuance.burnedRao += withheldRao;
  const ownerRao = subnet.pendingOwnerRao;
  if (ownerRao > 0n) changeStake(subnet, subnet.ownerHotkey, subnet.ownerColdkey, ownerRao);
  const carriedRao = shares.poolRao - minersRao - validatorsRao - withheldRao;
  subnet.pendingOwnerRao = 0n;
  subnet.pendingServerRao = 0n;
  subnet.pendingValidatorRao = carriedRao;
  emit(context, "EpochRun", {
    netuid: subnet.netuid,
    epoch: subnet.epochIndex,
    poolRao: shares.poolRao,
    minersRao,
    validatorsRao,
    withheldRao,
    ownerRao,
    carriedRao,
  });
}

/** The hotkey's owner keeps the take; the rest goes to all stakers in proportion, remainder to owner. */
function payDividends(
  subnet: SubnetState,
  hotkey: string,
  coldkey: string,
  amountRao: bigint,
): void {
  if (amountRao === 0n) return;
  const stakers = [...(subnet.stakes.get(hotkey) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1));
  let totalRao = 0n;
  for (const [, stakedRao] of stakers) totalRao += stakedRao;
  const takeRao = (amountRao * BigInt(subnet.hyperparameters.delegateTake)) / U16_MAX;
  const sharedRao = amountRao - takeRao;
  let paidRao = 0n;
  for (const [staker, stakedRao] of stakers) {
    const shareRao = (sharedRao * stakedRao) / totalRao;
    paidRao += shareRao;
    if (shareRao > 0n) changeStake(subnet, hotkey, staker, shareRao);
  }
  if (amountRao > paidRao) changeStake(subnet, hotkey, coldkey, amountRao - paidRao);
}
