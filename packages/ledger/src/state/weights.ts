import type { StoredRow } from "../yuma/types.ts";
import {
  type BlockContext,
  emit,
  neuronOf,
  ROOT_NETUID,
  stakeOfHotkey,
  subnetOf,
} from "./context.ts";
import { ensure } from "./errors.ts";
import type { Address, SubnetState } from "./types.ts";

const U16_MAX = 65_535;

/** A vector of weights as a call carries it. */
export interface WeightsArguments {
  netuid: number;
  uids: readonly number[];
  weights: readonly number[];
  versionKey: number;
}

/** Sets weights in the open; refused where the subnet wants commit-reveal. */
export function setWeights(context: BlockContext, hotkey: Address, args: WeightsArguments): void {
  const subnet = context.state.subnets.get(args.netuid);
  ensure(!subnet?.hyperparameters.commitRevealEnabled, "CommitRevealEnabled");
  applyWeights(context, hotkey, args);
}

/** All checks in Subtensor's order, then the upscaled row is stored. Reveals end here as well. */
export function applyWeights(context: BlockContext, hotkey: Address, args: WeightsArguments): void {
  const { uids, weights } = args;
  ensure(args.netuid !== ROOT_NETUID, "CanNotSetRootNetworkWeights");
  ensure(uids.length === weights.length, "WeightVecNotEqualSize");
  const subnet = subnetOf(context.state, args.netuid);
  const rules = subnet.hyperparameters;
  ensure(uids.length <= subnet.neurons.length, "UidsLengthExceedUidsInSubNet");
  const { uid, neuron } = neuronOf(subnet, hotkey);
  ensureStake(subnet, hotkey);
  ensure(args.versionKey >= rules.weightsVersionKey, "IncorrectWeightVersionKey");
  if (!rules.commitRevealEnabled) {
    const elapsed = context.block - neuron.lastUpdateBlock;
    ensure(elapsed >= rules.weightsRateLimitBlocks, "SettingWeightsTooFast", `${elapsed} blocks`);
  }
  const selfOnly = uids.length === 1 && uids[0] === uid;
  ensure(neuron.validatorPermit || selfOnly, "NeuronNoValidatorPermit");
  ensure(new Set(uids).size === uids.length, "DuplicateUids");
  ensure(
    uids.every((other) => other < subnet.neurons.length),
    "UidVecContainInvalidOne",
  );
  ensure(selfOnly || uids.length >= rules.minAllowedWeights, "WeightVecLengthIsLow");
  const upscaled = maxUpscale(weights);
  ensure(selfOnly || isWithinLimit(upscaled, rules.maxWeightsLimit), "MaxWeightExceeded");
  neuron.weights = uids.map((other, index): StoredRow[number] => [other, upscaled[index]!]);
  // With commit-reveal the commitment has already moved lastUpdate; a reveal must not.
  if (!rules.commitRevealEnabled) neuron.lastUpdateBlock = context.block;
  emit(context, "WeightsSet", { netuid: args.netuid, uid });
}

/** Throws NotEnoughStakeToSetWeights below the subnet's threshold. */
export function ensureStake(subnet: SubnetState, hotkey: Address): void {
  const stakeRao = stakeOfHotkey(subnet, hotkey);
  const { stakeThresholdRao } = subnet.hyperparameters;
  ensure(stakeRao >= stakeThresholdRao, "NotEnoughStakeToSetWeights", `${stakeRao} rao`);
}

/** Scales so that the largest value is 65535, halves rounded away from zero; zeros stay zeros. */
export function maxUpscale(weights: readonly number[]): number[] {
  const largest = weights.reduce((a, b) => Math.max(a, b), 0);
  if (largest === 0) return [...weights];
  return weights.map((value) => Math.floor((2 * value * U16_MAX + largest) / (2 * largest)));
}

function isWithinLimit(upscaled: readonly number[], limit: number): boolean {
  if (limit === U16_MAX) return true;
  const total = upscaled.reduce((a, b) => a + b, 0);
  const largest = upscaled.reduce((a, b) => Math.max(a, b), 0);
  return total === 0 || largest * U16_MAX <= limit * total;
}
