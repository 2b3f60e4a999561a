import { create } from "@bufbuild/protobuf";
import { type SamplingParameters, SamplingParametersSchema } from "@covenant/contracts/common";
import {
  type GroupAssignment,
  GroupAssignmentSchema,
  type RolloutContract,
  RolloutContractSchema,
} from "@covenant/contracts/grail";
import { trainSeed } from "./environment.ts";
import {
  fingerprintDimsMax,
  groupSizeMax,
  groupsPerContractMax,
  idLengthMax,
  stopTokensMax,
} from "./limits.ts";
import { domainHash, fingerprintSeed, u32le } from "./seeds.ts";

/** Values of one fingerprint, where nobody says otherwise. */
export const defaultFingerprintDims = 16;

/** What a contract is made of; the rest follows. */
export interface ContractTerms {
  contractId: string;
  runId: string;
  policyVersion: number;
  checkpointRoot: Uint8Array;
  /** For example "arithmetic@1". */
  environment: string;
  sampling: {
    temperature: number;
    topK: number;
    topP: number;
    maxNewTokens: number;
    stopTokenIds: readonly number[];
  };
  groupSize: number;
  beaconBlock: number;
  beacon: Uint8Array;
  deadlineBlock: number;
  fingerprintDims?: number;
}

/** Sampling parameters as a message. */
export function samplingParameters(sampling: ContractTerms["sampling"]): SamplingParameters {
  return create(SamplingParametersSchema, {
    temperature: sampling.temperature,
    topK: sampling.topK,
    topP: sampling.topP,
    maxNewTokens: sampling.maxNewTokens,
    stopTokenIds: [...sampling.stopTokenIds],
  });
}

/** A contract with its fingerprint key. Throws a RangeError on terms that no worker would accept. */
export function buildContract(terms: ContractTerms): RolloutContract {
  const contract = create(RolloutContractSchema, {
    contractId: terms.contractId,
    runId: terms.runId,
    policyVersion: terms.policyVersion,
    checkpointRoot: terms.checkpointRoot,
    environment: terms.environment,
    sampling: samplingParameters(terms.sampling),
    groupSize: terms.groupSize,
    beaconBlock: BigInt(terms.beaconBlock),
    beacon: terms.beacon,
    deadlineBlock: BigInt(terms.deadlineBlock),
    fingerprintSeed: fingerprintSeed(terms.beacon, terms.checkpointRoot),
    fingerprintDims: terms.fingerprintDims ?? defaultFingerprintDims,
  });
  const fault = contractFault(contract);
  if (fault !== undefined) throw new RangeError(fault);
  return contract;
}

/** What is wrong with a contract, in one sentence, or undefined. Workers check before they work. */
export function contractFault(contract: RolloutContract): string | undefined {
  const { sampling } = contract;
  if (sampling === undefined) return "The contract names no sampling parameters.";
  if (contract.contractId.length === 0 || contract.contractId.length > idLengthMax) {
    return "The contract id is empty or too long.";
  }
  if (contract.checkpointRoot.length !== 32) return "The checkpoint root is not 32 bytes.";
  if (contract.beacon.length !== 32) return "The beacon is not 32 bytes.";
  if (contract.groupSize < 1 || contract.groupSize > groupSizeMax) {
    return `The group size is outside 1..${groupSizeMax}.`;
  }
  if (contract.fingerprintDims < 1 || contract.fingerprintDims > fingerprintDimsMax) {
    return `The fingerprint has dimensions outside 1..${fingerprintDimsMax}.`;
  }
  const expected = fingerprintSeed(contract.beacon, contract.checkpointRoot);
  if (expected.some((byte, index) => byte !== contract.fingerprintSeed[index])) {
    return "The fingerprint key does not follow from beacon and checkpoint.";
  }
  return samplingFault(sampling);
}

/** What is wrong with sampling parameters, in one sentence, or undefined. */
export function samplingFault(sampling: SamplingParameters): string | undefined {
  if (!(sampling.temperature >= 0 && sampling.temperature <= 10)) {
    return "The temperature is outside 0..10.";
  }
  if (!(sampling.topP > 0 && sampling.topP <= 1)) return "top_p is outside (0, 1].";
  if (sampling.maxNewTokens < 1) return "max_new_tokens is 0.";
  if (sampling.stopTokenIds.length > stopTokensMax) return "There are too many stop tokens.";
  return undefined;
}

/**
 * Slot number `slot` of a contract: which episode it plays and which rollout indices it draws. Both
 * follow from beacon and slot alone, so neither the operator nor a worker picks prompts, and a slot
 * that is handed to a second worker asks for the same draws. Throws a RangeError outside the bound.
 */
export function groupSlot(
  contract: RolloutContract,
  slot: number,
): { environmentSeed: bigint; firstRolloutIndex: number } {
  if (!Number.isInteger(slot) || slot < 0 || slot >= groupsPerContractMax) {
    throw new RangeError(`Slot ${slot} is outside 0..${groupsPerContractMax - 1}.`);
  }
  const digest = domainHash("covenant.episode.v1", contract.beacon, u32le(slot));
  const view = new DataView(digest.buffer, digest.byteOffset, 8);
  return {
    environmentSeed: trainSeed(view.getBigUint64(0, true)),
    firstRolloutIndex: slot * contract.groupSize,
  };
}

/** The assignment of a slot under a group id. */
export function buildAssignment(
  contract: RolloutContract,
  slot: number,
  groupId: string,
): GroupAssignment {
  return create(GroupAssignmentSchema, { groupId, ...groupSlot(contract, slot) });
}
