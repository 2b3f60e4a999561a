import type { StoredRow } from "../yuma/types.ts";
import type { Hyperparameters } from "./hyperparameters.ts";

/** SS58 address, prefix 42. */
export type Address = string;

/** A key's money and the number of extrinsics it has had included. */
export interface Account {
  balanceRao: bigint;
  nonce: number;
}

/** Where a neuron can be reached. */
export interface Endpoint {
  /** IPv4 or IPv6 literal. */
  host: string;
  port: number;
  /** 1 trainer, 2 validator; other numbers are carried. */
  protocol: number;
  version: number;
  servedAtBlock: number;
}

/** One registered uid with what the last epoch said about it. u16 where nothing else is said. */
export interface NeuronState {
  hotkey: Address;
  coldkey: Address;
  registeredAtBlock: number;
  lastUpdateBlock: number;
  active: boolean;
  validatorPermit: boolean;
  stakeWeight: number;
  consensus: number;
  incentive: number;
  dividends: number;
  validatorTrust: number;
  /** Rao of the last epoch. */
  emissionRao: bigint;
  endpoint?: Endpoint;
  /** Stored rows are replaced, never changed in place: copies of the state share them. */
  weights: StoredRow;
  bonds: StoredRow;
}

/** The last thing a hotkey published on a subnet. */
export interface CommitmentState {
  /** Hexadecimal, at most 3 of at most 128 bytes. */
  fields: readonly string[];
  block: number;
  /** Position of the extrinsic within the block: orders commitments of one block. */
  index: number;
}

/** Bytes of commitments a hotkey has written within one epoch. */
export interface CommitmentSpace {
  epoch: number;
  usedBytes: number;
}

/** A hash of weights waiting for its reveal. */
export interface WeightCommit {
  /** Hexadecimal blake2-256. */
  hash: string;
  epoch: number;
  block: number;
}

/** Weights that the chain itself sets once their round has come. Plain, not encrypted. */
export interface TimelockedCommit {
  hotkey: Address;
  uids: readonly number[];
  values: readonly number[];
  versionKey: number;
  revealRound: number;
  epoch: number;
  block: number;
}

/** One subnet. */
export interface SubnetState {
  netuid: number;
  ownerColdkey: Address;
  ownerHotkey: Address;
  createdAtBlock: number;
  hyperparameters: Hyperparameters;
  /** Block of startCall; emission begins with the next one. */
  startedAtBlock?: number;
  /** False removes the subnet from emission and blocks staking. */
  subtokenEnabled: boolean;
  /** Pool side of emission only; kept and reported, without effect where there is no pool. */
  emissionEnabled: boolean;
  burnRao: bigint;
  registrationsThisBlock: number;
  neurons: NeuronState[];
  uids: Map<Address, number>;
  /** hotkey → coldkey → rao. */
  stakes: Map<Address, Map<Address, bigint>>;
  commitments: Map<Address, CommitmentState>;
  commitmentSpace: Map<Address, CommitmentSpace>;
  weightCommits: Map<Address, readonly WeightCommit[]>;
  timelockedCommits: readonly TimelockedCommit[];
  pendingServerRao: bigint;
  pendingValidatorRao: bigint;
  pendingOwnerRao: bigint;
  lastEpochBlock: number;
  /** Counts epochs; commit-reveal windows are measured in it. */
  epochIndex: number;
  /** An epoch asked for by the owner. */
  triggeredEpochBlock?: number;
}

/** Where all rao that ever existed has gone. */
export interface Issuance {
  genesisRao: bigint;
  emittedRao: bigint;
  /** Paid for registrations, or withheld and recycled: no longer issued. */
  recycledRao: bigint;
  /** Withheld from the owner's hotkeys and destroyed. */
  burnedRao: bigint;
}

/** Rules of the whole chain, fixed at genesis. */
export interface ChainParameters {
  existentialDepositRao: bigint;
  /** Longest life of an extrinsic, in blocks. */
  maxEraBlocks: number;
  /** Epochs that may run in one block; further ones wait for the next. */
  maxEpochsPerBlock: number;
  /** Round r of the timelock clock starts roundPeriodMs · (r − 1) after this unix time. */
  roundGenesisMs: number;
  roundPeriodMs: number;
}

/** The newest block. */
export interface Head {
  number: number;
  /** Hexadecimal, 32 bytes. */
  hash: string;
  timeMs: number;
}

/** Everything the chain knows, after one block. */
export interface ChainState {
  genesisHash: string;
  parameters: ChainParameters;
  sudo?: Address;
  head: Head;
  accounts: Map<Address, Account>;
  /** Which coldkey a hotkey belongs to, once it has registered or been staked to. */
  coldkeys: Map<Address, Address>;
  subnets: Map<number, SubnetState>;
  issuance: Issuance;
}

/** Something that happened in a block. */
export interface ChainEvent {
  name: string;
  /** Position of the extrinsic that caused it; absent for the chain's own steps. */
  extrinsic?: number;
  data: { [key: string]: unknown };
}
