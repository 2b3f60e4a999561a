import { ss58Decode } from "@covenant/contracts";
import { div, exp, fromInteger } from "../yuma/fixed.ts";
import {
  accountOf,
  type BlockContext,
  emit,
  ensureBalance,
  ROOT_NETUID,
  subnetOf,
} from "./context.ts";
import { ensure } from "./errors.ts";
import type { Address, NeuronState, SubnetState } from "./types.ts";

/** ln 2 with 32 fractional bits. */
const LN_2 = 2_977_044_472n;
const FRACTION_BITS = 32n;
const MILLION = 1_000_000n;

/**
 * Registers a hotkey on a subnet: the coldkey pays the current price, which is recycled, and the
 * hotkey gets a free uid or the uid of the least useful neuron that is no longer immune.
 */
export function burnedRegister(
  context: BlockContext,
  coldkey: Address,
  args: { netuid: number; hotkey: Address },
): void {
  const { state } = context;
  ensure(args.netuid !== ROOT_NETUID, "SubnetNotExists", "the root network takes no neurons");
  const subnet = subnetOf(state, args.netuid);
  const { hotkey } = args;
  const rules = subnet.hyperparameters;
  ensure(isAddress(hotkey), "BadOrigin", "hotkey is not an address");
  ensure(rules.registrationAllowed, "SubNetRegistrationDisabled");
  ensure(
    subnet.registrationsThisBlock < rules.maxRegistrationsPerBlock,
    "TooManyRegistrationsThisBlock",
  );
  ensure(!subnet.uids.has(hotkey), "HotKeyAlreadyRegisteredInSubNet");
  ensure((state.coldkeys.get(hotkey) ?? coldkey) === coldkey, "NonAssociatedColdKey");
  const priceRao = subnet.burnRao;
  ensureBalance(state, coldkey, priceRao);
  const uid = chooseUid(subnet, context.block);
  ensure(uid !== undefined, "NoNeuronIdAvailable");

  accountOf(state, coldkey).balanceRao -= priceRao;
  state.issuance.recycledRao += priceRao;
  state.coldkeys.set(hotkey, coldkey);
  const replaced = subnet.neurons[uid]?.hotkey;
  if (replaced !== undefined) forget(subnet, replaced);
  subnet.neurons[uid] = newNeuron(hotkey, coldkey, context.block);
  subnet.uids.set(hotkey, uid);
  subnet.registrationsThisBlock += 1;
  subnet.burnRao = limitBurn(subnet, (priceRao * BigInt(rules.burnMultiplierMillionths)) / MILLION);
  emit(context, "NeuronRegistered", { netuid: args.netuid, uid, hotkey, priceRao, replaced });
}

/** Lowers the registration price by one block's share of its half-life. */
export function decayBurn(subnet: SubnetState): void {
  const factor = decayFactor(subnet.hyperparameters.burnHalfLifeBlocks);
  subnet.burnRao = limitBurn(subnet, (subnet.burnRao * factor) >> FRACTION_BITS);
}

/** True for an SS58 address of the generic network. */
export function isAddress(text: string): boolean {
  try {
    ss58Decode(text);
    return true;
  } catch {
    return false;
  }
}

function decayFactor(halfLifeBlocks: number): bigint {
  return exp(-div(LN_2, fromInteger(halfLifeBlocks)));
}

function limitBurn(subnet: SubnetState, burnRao: bigint): bigint {
  const { minBurnRao, maxBurnRao } = subnet.hyperparameters;
  if (burnRao < minBurnRao) return minBurnRao;
  return burnRao > maxBurnRao ? maxBurnRao : burnRao;
}

/** A free uid, else the one with the lowest emission outside immunity; the earlier among equals. */
function chooseUid(subnet: SubnetState, block: number): number | undefined {
  const { maxUids, immunityPeriodBlocks } = subnet.hyperparameters;
  if (subnet.neurons.length < maxUids) return subnet.neurons.length;
  let chosen: number | undefined;
  for (const [uid, neuron] of subnet.neurons.entries()) {
    const immune = block - neuron.registeredAtBlock < immunityPeriodBlocks;
    if (immune || neuron.hotkey === subnet.ownerHotkey) continue;
    if (chosen === undefined || isWeaker(neuron, subnet.neurons[chosen]!)) chosen = uid;
  }
  return chosen;
}

function isWeaker(a: NeuronState, b: NeuronState): boolean {
  if (a.emissionRao !== b.emissionRao) return a.emissionRao < b.emissionRao;
  return a.registeredAtBlock < b.registeredAtBlock;
}

/** What belonged to a replaced hotkey's seat. Its stake stays: it is its coldkeys' money. */
function forget(subnet: SubnetState, hotkey: Address): void {
  subnet.uids.delete(hotkey);
  subnet.commitments.delete(hotkey);
  subnet.commitmentSpace.delete(hotkey);
  subnet.weightCommits.delete(hotkey);
  subnet.timelockedCommits = subnet.timelockedCommits.filter((commit) => commit.hotkey !== hotkey);
}

function newNeuron(hotkey: Address, coldkey: Address, block: number): NeuronState {
  return {
    hotkey,
    coldkey,
    registeredAtBlock: block,
    lastUpdateBlock: block,
    active: true,
    validatorPermit: false,
    stakeWeight: 0,
    consensus: 0,
    incentive: 0,
    dividends: 0,
    validatorTrust: 0,
    emissionRao: 0n,
    weights: [],
    bonds: [],
  };
}
