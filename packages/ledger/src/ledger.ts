import type { Hotkey } from "@covenant/contracts";
import type { Hyperparameters } from "./state/hyperparameters.ts";

/** Where a neuron can be reached. */
export interface NeuronEndpoint {
  host: string;
  port: number;
  /** 1 trainer, 2 validator. */
  protocol: number;
}

/** `protocol` of a trainer's endpoint. */
export const TRAINER_PROTOCOL = 1;
/** `protocol` of a validator's endpoint. */
export const VALIDATOR_PROTOCOL = 2;

/** One registered participant of a subnet. u16 values are proportions of 65535. */
export interface Neuron {
  uid: number;
  /** SS58 address. */
  hotkey: string;
  coldkey: string;
  stakeRao: bigint;
  endpoint?: NeuronEndpoint;
  validatorPermit: boolean;
  active: boolean;
  stakeWeight: number;
  consensus: number;
  incentive: number;
  dividends: number;
  validatorTrust: number;
  /** Of the last epoch. */
  emissionRao: bigint;
  lastUpdateBlock: number;
  registeredAtBlock: number;
}

/** What a hotkey last published. Block and index order commitments of all hotkeys. */
export interface Commitment {
  hotkey: string;
  fields: Uint8Array[];
  block: number;
  index: number;
}

/** A subnet's rules and its calendar. */
export interface Subnet {
  netuid: number;
  ownerColdkey: string;
  ownerHotkey: string;
  hyperparameters: Hyperparameters;
  /** Price of the next registration. */
  burnRao: bigint;
  neuronCount: number;
  lastEpochBlock: number;
  nextEpochBlock: number;
  epochIndex: number;
}

/** Whether a subnet's blocks create emission, and what waits for the next epoch. */
export interface EmissionState {
  /** True when the next block creates none. */
  paused: boolean;
  started: boolean;
  subtokenEnabled: boolean;
  /** Pool side only. */
  emissionEnabled: boolean;
  registrationAllowed: boolean;
  pendingMinersRao: bigint;
  pendingValidatorsRao: bigint;
  pendingOwnerRao: bigint;
  nextEpochBlock: number;
}

/** Where an extrinsic ended up. */
export interface Inclusion {
  block: number;
  index: number;
}

/** Weights by uid: `weights[i]` (any u16 scale) belongs to `uids[i]`. */
export interface WeightVector {
  netuid: number;
  hotkey: Hotkey;
  uids: readonly number[];
  weights: readonly number[];
  versionKey: number;
}

/**
 * What the mesh needs from a chain, without naming one. Reads are of final blocks. Every call has a
 * deadline; every failure is a CovenantError with a COV_LEDGER_* code, and a refusal by the chain
 * carries Subtensor's error name in `metadata.name`. A call that changes the chain returns when the
 * change is in a final block.
 */
export interface Ledger {
  /** Number of the newest final block. */
  headBlock(): Promise<number>;
  /** Resolves with the head's number once it is at least `block`; rejects when `signal` aborts. */
  waitForBlock(block: number, signal?: AbortSignal): Promise<number>;
  /** 32 public random bytes of a block. @throws COV_LEDGER_BLOCK_NOT_FINAL for a future one */
  randomness(block: number): Promise<Uint8Array>;

  /** The hotkey's uid; registers it by burn from the coldkey when it has none. */
  ensureRegistered(options: {
    netuid: number;
    hotkey: Pick<Hotkey, "address">;
    coldkey: Hotkey;
  }): Promise<number>;
  addStake(options: {
    coldkey: Hotkey;
    hotkey: string;
    netuid: number;
    amountRao: bigint;
  }): Promise<Inclusion>;
  removeStake(options: {
    coldkey: Hotkey;
    hotkey: string;
    netuid: number;
    amountRao: bigint;
  }): Promise<Inclusion>;
  /** Free balance of an address, in rao. */
  balance(address: string): Promise<bigint>;

  /** All neurons, by ascending uid. */
  metagraph(netuid: number): Promise<Neuron[]>;
  /** Publishes where a neuron is reached; returns at once when that is already published. */
  serveEndpoint(options: { netuid: number; hotkey: Hotkey } & NeuronEndpoint): Promise<void>;

  /** Replaces the hotkey's commitment: at most 3 fields of at most 128 bytes. */
  setCommitment(options: {
    netuid: number;
    hotkey: Hotkey;
    fields: readonly Uint8Array[];
  }): Promise<Inclusion>;
  commitment(netuid: number, address: string): Promise<Commitment | undefined>;
  /** All commitments in the order of the chain. */
  commitments(netuid: number): Promise<Commitment[]>;

  setWeights(options: WeightVector): Promise<Inclusion>;
  /** Commits to weights; keep `salt` to reveal them in the reveal epoch. */
  commitWeights(options: WeightVector & { salt: readonly number[] }): Promise<Inclusion>;
  revealWeights(options: WeightVector & { salt: readonly number[] }): Promise<Inclusion>;
  /** Stored weights (u16, largest 65535) by uid: rows of [uid, weight]. */
  weights(netuid: number): Promise<[uid: number, weight: number][][]>;

  subnet(netuid: number): Promise<Subnet>;
  emission(netuid: number): Promise<EmissionState>;

  /** Ends waiting calls and closes connections. Later calls fail. */
  close(): void;
}
