import {
  accountOf,
  type BlockContext,
  changeStake,
  emit,
  ensureBalance,
  subnetOf,
  withdraw,
} from "./context.ts";
import { ensure } from "./errors.ts";
import { isAddress } from "./registration.ts";
import type { Address } from "./types.ts";

/**
 * Stake is held in rao, one for one: there is no pool and no price between TAO and a subnet's own
 * token here. Amounts, permissions and conservation are modelled, slippage is not.
 */
interface StakeArguments {
  netuid: number;
  hotkey: Address;
  amountRao: string;
}

/** Moves rao from the coldkey's balance to its stake on a hotkey. */
export function addStake(context: BlockContext, coldkey: Address, args: StakeArguments): void {
  const { state } = context;
  const subnet = subnetOf(state, args.netuid);
  const amountRao = BigInt(args.amountRao);
  ensure(subnet.subtokenEnabled, "SubtokenDisabled");
  ensure(amountRao > 0n, "StakeAmountTooLow");
  ensure(state.coldkeys.has(args.hotkey), "HotKeyNotRegisteredInSubNet", "unknown hotkey");
  withdraw(context, coldkey, amountRao);
  changeStake(subnet, args.hotkey, coldkey, amountRao);
  emit(context, "StakeAdded", { netuid: args.netuid, hotkey: args.hotkey, coldkey, amountRao });
}

/** Moves rao from the coldkey's stake on a hotkey back to its balance. */
export function removeStake(context: BlockContext, coldkey: Address, args: StakeArguments): void {
  const subnet = subnetOf(context.state, args.netuid);
  const amountRao = BigInt(args.amountRao);
  ensure(subnet.subtokenEnabled, "SubtokenDisabled");
  ensure(amountRao > 0n, "StakeAmountTooLow");
  const stakedRao = subnet.stakes.get(args.hotkey)?.get(coldkey) ?? 0n;
  ensure(stakedRao >= amountRao, "NotEnoughStakeToWithdraw", `staked ${stakedRao} rao`);
  changeStake(subnet, args.hotkey, coldkey, -amountRao);
  accountOf(context.state, coldkey).balanceRao += amountRao;
  emit(context, "StakeRemoved", { netuid: args.netuid, hotkey: args.hotkey, coldkey, amountRao });
}

/** Moves rao from one balance to another. */
export function transfer(
  context: BlockContext,
  source: Address,
  args: { destination: Address; amountRao: string },
): void {
  const amountRao = BigInt(args.amountRao);
  ensure(isAddress(args.destination), "BadOrigin", "destination is not an address");
  ensure(amountRao > 0n, "InvalidValue", "amount is zero");
  ensureBalance(context.state, source, amountRao);
  accountOf(context.state, source).balanceRao -= amountRao;
  accountOf(context.state, args.destination).balanceRao += amountRao;
  emit(context, "Transfer", { source, destination: args.destination, amountRao });
}
