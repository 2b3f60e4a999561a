import type { z } from "zod";
import { stakeOfHotkey, subnetOf } from "../state/context.ts";
import { isEmitting, nextEpochBlock } from "../state/emission.ts";
import type { ChainState, NeuronState, SubnetState } from "../state/types.ts";
import type { issuanceSchema, metagraphSchema, neuronSchema } from "../wire.ts";

/** The metagraph as it travels. */
export function metagraphView(state: ChainState, netuid: number): z.input<typeof metagraphSchema> {
  const subnet = subnetOf(state, netuid);
  return {
    block: state.head.number,
    neurons: subnet.neurons.map((neuron, uid) => neuronView(subnet, neuron, uid)),
  };
}

function neuronView(
  subnet: SubnetState,
  neuron: NeuronState,
  uid: number,
): z.input<typeof neuronSchema> {
  const { weights: _weights, bonds: _bonds, endpoint, emissionRao, ...plain } = neuron;
  return {
    uid,
    ...plain,
    emissionRao: String(emissionRao),
    stakeRao: String(stakeOfHotkey(subnet, neuron.hotkey)),
    ...(endpoint === undefined
      ? {}
      : {
          endpoint: { host: endpoint.host, port: endpoint.port, protocol: endpoint.protocol },
        }),
  };
}

/** A subnet's rules, money and calendar as they travel. */
export function subnetView(state: ChainState, netuid: number): { [key: string]: unknown } {
  const subnet = subnetOf(state, netuid);
  const { hyperparameters } = subnet;
  return {
    netuid,
    block: state.head.number,
    ownerColdkey: subnet.ownerColdkey,
    ownerHotkey: subnet.ownerHotkey,
    hyperparameters: Object.fromEntries(
      Object.entries(hyperparameters).map(([key, value]) => [
        key,
        typeof value === "bigint" ? String(value) : value,
      ]),
    ),
    burnRao: String(subnet.burnRao),
    neuronCount: subnet.neurons.length,
    started: subnet.startedAtBlock !== undefined,
    subtokenEnabled: subnet.subtokenEnabled,
    emissionEnabled: subnet.emissionEnabled,
    emitting: isEmitting(subnet, state.head.number + 1),
    pendingServerRao: String(subnet.pendingServerRao),
    pendingValidatorRao: String(subnet.pendingValidatorRao),
    pendingOwnerRao: String(subnet.pendingOwnerRao),
    lastEpochBlock: subnet.lastEpochBlock,
    nextEpochBlock: nextEpochBlock(subnet),
    epochIndex: subnet.epochIndex,
  };
}

/** Where all rao has gone, as it travels. */
export function issuanceView(state: ChainState): z.input<typeof issuanceSchema> {
  const { genesisRao, emittedRao, recycledRao, burnedRao } = state.issuance;
  return {
    genesisRao: String(genesisRao),
    emittedRao: String(emittedRao),
    recycledRao: String(recycledRao),
    burnedRao: String(burnedRao),
  };
}
