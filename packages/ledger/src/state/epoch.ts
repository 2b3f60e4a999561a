import { emissionOf, runEpoch } from "../yuma/epoch.ts";
import type { YumaParameters } from "../yuma/types.ts";
import { dropExpiredCommits, oldestCommitBlock } from "./commit-reveal.ts";
import { stakeOfHotkey } from "./context.ts";
import type { Hyperparameters } from "./hyperparameters.ts";
import type { SubnetState } from "./types.ts";

/** What an epoch owes to each uid, in rao. The sums never exceed the pool. */
export interface EpochShares {
  minerRao: bigint[];
  validatorRao: bigint[];
  poolRao: bigint;
}

/** Runs Yuma on a subnet, stores its results on the neurons, and returns what is owed. */
export function runSubnetEpoch(subnet: SubnetState, block: number): EpochShares {
  const { neurons, hyperparameters } = subnet;
  const ownerUid = subnet.uids.get(subnet.ownerHotkey);
  const result = runEpoch({
    block,
    lastEpochBlock:
      subnet.epochIndex > 0 ? subnet.lastEpochBlock + 1 : block - hyperparameters.tempo,
    stakesRao: neurons.map((neuron) => stakeOfHotkey(subnet, neuron.hotkey)),
    lastUpdateBlocks: neurons.map((neuron) => neuron.lastUpdateBlock),
    registeredAtBlocks: neurons.map((neuron) => neuron.registeredAtBlock),
    validatorPermits: neurons.map((neuron) => neuron.validatorPermit),
    weights: neurons.map((neuron) => neuron.weights),
    bonds: neurons.map((neuron) => neuron.bonds),
    parameters: yumaParameters(hyperparameters),
    ...(ownerUid === undefined ? {} : { ownerUid }),
    ...(hyperparameters.commitRevealEnabled
      ? { oldestCommitBlocks: neurons.map(({ hotkey }) => oldestCommitBlock(subnet, hotkey)) }
      : {}),
  });
  const poolRao = subnet.pendingServerRao + subnet.pendingValidatorRao;
  const minerRao = result.serverShares.map((share) => emissionOf(share, poolRao));
  const validatorRao = result.validatorShares.map((share) => emissionOf(share, poolRao));
  for (const [uid, neuron] of neurons.entries()) {
    neuron.active = result.active[uid]!;
    neuron.stakeWeight = result.stakeWeight[uid]!;
    neuron.consensus = result.consensus[uid]!;
    neuron.incentive = result.incentive[uid]!;
    neuron.dividends = result.dividends[uid]!;
    neuron.validatorTrust = result.validatorTrust[uid]!;
    neuron.validatorPermit = result.validatorPermit[uid]!;
    neuron.emissionRao = emissionOf(result.combinedShares[uid]!, poolRao);
    neuron.bonds = result.bonds[uid]!;
  }
  dropExpiredCommits(subnet);
  return { minerRao, validatorRao, poolRao };
}

function yumaParameters(rules: Hyperparameters): YumaParameters {
  return {
    yuma3: rules.yuma3,
    liquidAlpha: rules.liquidAlpha,
    alphaLow: rules.alphaLow,
    alphaHigh: rules.alphaHigh,
    alphaSigmoidSteepness: rules.alphaSigmoidSteepness,
    bondsMovingAverage: rules.bondsMovingAverage,
    bondsPenalty: rules.bondsPenalty,
    kappa: rules.kappa,
    maxValidators: rules.maxValidators,
    activityCutoffBlocks: rules.activityCutoffBlocks,
    stakeThresholdRao: rules.stakeThresholdRao,
  };
}
