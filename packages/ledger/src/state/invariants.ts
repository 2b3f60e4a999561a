import { toHex } from "@covenant/contracts";
import { canonicalHash } from "./canonical-json.ts";
import type { ChainState, SubnetState } from "./types.ts";

/** Hash of everything the chain knows (hexadecimal): equal on every replay of the same blocks. */
export function stateHash(state: ChainState): string {
  return toHex(canonicalHash(state));
}

/** Rao in balances, stakes and pending emission. */
export function heldRao(state: ChainState): bigint {
  let total = 0n;
  for (const account of state.accounts.values()) total += account.balanceRao;
  for (const subnet of state.subnets.values()) {
    for (const amounts of subnet.stakes.values()) {
      for (const amount of amounts.values()) total += amount;
    }
    total += subnet.pendingOwnerRao + subnet.pendingServerRao + subnet.pendingValidatorRao;
  }
  return total;
}

/** What must hold after every block; returns the first violation as a sentence. */
export function findViolation(state: ChainState): string | undefined {
  const { genesisRao, emittedRao, recycledRao, burnedRao } = state.issuance;
  const issuedRao = genesisRao + emittedRao - recycledRao - burnedRao;
  const held = heldRao(state);
  if (held !== issuedRao) return `${held} rao are held, ${issuedRao} are issued`;
  for (const [address, account] of state.accounts) {
    if (account.balanceRao < 0n) return `balance of ${address} is negative`;
  }
  for (const subnet of state.subnets.values()) {
    const violation = subnetViolation(subnet);
    if (violation !== undefined) return `subnet ${subnet.netuid}: ${violation}`;
  }
  return undefined;
}

function subnetViolation(subnet: SubnetState): string | undefined {
  for (const amounts of subnet.stakes.values()) {
    for (const amount of amounts.values()) if (amount <= 0n) return "a stake is not positive";
  }
  if (subnet.pendingOwnerRao < 0n) return "pending owner emission is negative";
  if (subnet.pendingServerRao < 0n) return "pending miner emission is negative";
  if (subnet.pendingValidatorRao < 0n) return "pending validator emission is negative";
  if (subnet.uids.size !== subnet.neurons.length) return "uids and neurons differ in number";
  for (const [uid, neuron] of subnet.neurons.entries()) {
    if (subnet.uids.get(neuron.hotkey) !== uid) return `uid ${uid} is not its hotkey's`;
    for (const row of [neuron.weights, neuron.bonds]) {
      const named = new Set(row.map(([other]) => other));
      if (named.size !== row.length) return `uid ${uid} names a neuron twice`;
      for (const [other, value] of row) {
        if (other >= subnet.neurons.length) return `uid ${uid} names uid ${other}, which is free`;
        if (!Number.isInteger(value) || value < 0 || value > 65_535) return `value ${value}`;
      }
    }
  }
  return undefined;
}
