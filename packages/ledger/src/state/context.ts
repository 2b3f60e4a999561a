import { ensure, ModuleError } from "./errors.ts";
import type {
  Account,
  Address,
  ChainEvent,
  ChainState,
  NeuronState,
  SubnetState,
} from "./types.ts";

/** Root network: has no weights and no commitments here. */
export const ROOT_NETUID = 0;

/**
 * One block being made: a private copy of the state, and what has happened so far. Calls check
 * everything first and change the state only afterwards, so that a failed call leaves no trace.
 */
export interface BlockContext {
  state: ChainState;
  block: number;
  timeMs: number;
  /** Position of the extrinsic being applied; undefined during the chain's own steps. */
  extrinsic?: number;
  events: ChainEvent[];
}

/** Records an event of the current extrinsic or step. */
export function emit(context: BlockContext, name: string, data: ChainEvent["data"]): void {
  const { extrinsic } = context;
  context.events.push({ name, ...(extrinsic === undefined ? {} : { extrinsic }), data });
}

/** The account, created empty when it has never been seen. */
export function accountOf(state: ChainState, address: Address): Account {
  let account = state.accounts.get(address);
  if (account === undefined) {
    account = { balanceRao: 0n, nonce: 0 };
    state.accounts.set(address, account);
  }
  return account;
}

/** The subnet, or SubnetNotExists. */
export function subnetOf(state: ChainState, netuid: number): SubnetState {
  const subnet = state.subnets.get(netuid);
  if (subnet === undefined) throw new ModuleError("SubnetNotExists", `netuid ${netuid}`);
  return subnet;
}

/** The registered neuron of a hotkey, or HotKeyNotRegisteredInSubNet. */
export function neuronOf(
  subnet: SubnetState,
  hotkey: Address,
): { uid: number; neuron: NeuronState } {
  const uid = subnet.uids.get(hotkey);
  ensure(uid !== undefined, "HotKeyNotRegisteredInSubNet", `netuid ${subnet.netuid}`);
  return { uid, neuron: subnet.neurons[uid]! };
}

/** Takes rao from a balance that must stay above the existential deposit. */
export function withdraw(context: BlockContext, address: Address, amountRao: bigint): void {
  ensureBalance(context.state, address, amountRao);
  accountOf(context.state, address).balanceRao -= amountRao;
}

/** Throws NotEnoughBalanceToStake unless `withdraw` would succeed. */
export function ensureBalance(state: ChainState, address: Address, amountRao: bigint): void {
  const balanceRao = state.accounts.get(address)?.balanceRao ?? 0n;
  ensure(
    balanceRao - amountRao >= state.parameters.existentialDepositRao,
    "NotEnoughBalanceToStake",
    `balance ${balanceRao} rao, needed ${amountRao} and the existential deposit`,
  );
}

/** Sum of all coldkeys' stake on a hotkey, in rao. */
export function stakeOfHotkey(subnet: SubnetState, hotkey: Address): bigint {
  let total = 0n;
  for (const amount of subnet.stakes.get(hotkey)?.values() ?? []) total += amount;
  return total;
}

/** Adds rao (or takes, when negative) to one coldkey's stake; empty entries disappear. */
export function changeStake(
  subnet: SubnetState,
  hotkey: Address,
  coldkey: Address,
  changeRao: bigint,
): void {
  const byColdkey = subnet.stakes.get(hotkey) ?? new Map<Address, bigint>();
  const amount = (byColdkey.get(coldkey) ?? 0n) + changeRao;
  if (amount < 0n) throw new RangeError("stake cannot become negative");
  if (amount === 0n) byColdkey.delete(coldkey);
  else byColdkey.set(coldkey, amount);
  if (byColdkey.size === 0) subnet.stakes.delete(hotkey);
  else subnet.stakes.set(hotkey, byColdkey);
}
