import { fromHex } from "@covenant/contracts";
import type { z } from "zod";
import type { Commitment, EmissionState, Neuron, Subnet } from "../ledger.ts";
import type { commitmentSchema, neuronSchema, subnetSchema } from "../wire.ts";

/** A neuron as the mesh sees it. */
export function toNeuron(wire: z.output<typeof neuronSchema>): Neuron {
  const { stakeRao, emissionRao, endpoint, ...plain } = wire;
  return {
    ...plain,
    stakeRao: BigInt(stakeRao),
    emissionRao: BigInt(emissionRao),
    ...(endpoint === undefined ? {} : { endpoint }),
  };
}

/** A commitment with its fields as bytes. */
export function toCommitment(wire: z.output<typeof commitmentSchema>): Commitment {
  return { ...wire, fields: wire.fields.map(fromHex) };
}

/** A subnet's rules and calendar. */
export function toSubnet(wire: z.output<typeof subnetSchema>): Subnet {
  return {
    netuid: wire.netuid,
    ownerColdkey: wire.ownerColdkey,
    ownerHotkey: wire.ownerHotkey,
    hyperparameters: wire.hyperparameters,
    burnRao: BigInt(wire.burnRao),
    neuronCount: wire.neuronCount,
    lastEpochBlock: wire.lastEpochBlock,
    nextEpochBlock: wire.nextEpochBlock,
    epochIndex: wire.epochIndex,
  };
}

/** A subnet's emission, paused or not. */
export function toEmission(wire: z.output<typeof subnetSchema>): EmissionState {
  return {
    paused: !wire.emitting,
    started: wire.started,
    subtokenEnabled: wire.subtokenEnabled,
    emissionEnabled: wire.emissionEnabled,
    registrationAllowed: wire.hyperparameters.registrationAllowed,
    pendingMinersRao: BigInt(wire.pendingServerRao),
    pendingValidatorsRao: BigInt(wire.pendingValidatorRao),
    pendingOwnerRao: BigInt(wire.pendingOwnerRao),
    nextEpochBlock: wire.nextEpochBlock,
  };
}
