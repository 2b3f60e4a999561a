import type { ChainState, SubnetState } from "./types.ts";

/** A copy that can be changed without touching the original; immutable rows and lists are shared. */
export function cloneState(state: ChainState): ChainState {
  return {
    ...state,
    head: { ...state.head },
    accounts: cloneRecords(state.accounts),
    coldkeys: new Map(state.coldkeys),
    subnets: new Map([...state.subnets].map(([netuid, subnet]) => [netuid, cloneSubnet(subnet)])),
    issuance: { ...state.issuance },
  };
}

function cloneSubnet(subnet: SubnetState): SubnetState {
  return {
    ...subnet,
    neurons: subnet.neurons.map((neuron) => ({ ...neuron })),
    uids: new Map(subnet.uids),
    stakes: new Map([...subnet.stakes].map(([hotkey, amounts]) => [hotkey, new Map(amounts)])),
    commitments: new Map(subnet.commitments),
    commitmentSpace: new Map(subnet.commitmentSpace),
    weightCommits: new Map(subnet.weightCommits),
  };
}

function cloneRecords<Key, Value extends object>(map: Map<Key, Value>): Map<Key, Value> {
  return new Map([...map].map(([key, value]) => [key, { ...value }]));
}
