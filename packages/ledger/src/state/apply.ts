import { sha256, toHex } from "@covenant/contracts";
import {
  setHyperparameters,
  setTempo,
  startCall,
  sudoSetSubnetEmissionEnabled,
  sudoSetSubtokenEnabled,
  triggerEpoch,
} from "./administration.ts";
import type { Call, CallArguments } from "./calls.ts";
import { canonicalHash } from "./canonical-json.ts";
import { cloneState } from "./clone.ts";
import {
  commitTimelockedWeights,
  commitWeights,
  revealTimelocked,
  revealWeights,
} from "./commit-reveal.ts";
import { setCommitment } from "./commitments.ts";
import { accountOf, type BlockContext, emit } from "./context.ts";
import { accrueEmission, runDueEpochs } from "./emission.ts";
import { ModuleError } from "./errors.ts";
import { checkPlace, type Extrinsic, extrinsicHash } from "./extrinsic.ts";
import { burnedRegister, decayBurn } from "./registration.ts";
import { serveAxon } from "./serving.ts";
import { addStake, removeStake, transfer } from "./staking.ts";
import type { Address, ChainEvent, ChainState } from "./types.ts";
import { setWeights } from "./weights.ts";

const HASH_DOMAIN = new TextEncoder().encode("covenant.block");
const RANDOMNESS_DOMAIN = new TextEncoder().encode("covenant.randomness");

/** What a block is made from, besides the state before it. */
export interface BlockInput {
  /** Unix time; never before the parent's. */
  timeMs: number;
  /** 32 bytes hexadecimal chosen by the producer: makes the hash unpredictable. */
  entropy: string;
  extrinsics: readonly Extrinsic[];
}

/** How one extrinsic ended. */
export interface Receipt {
  extrinsicHash: string;
  block: number;
  index: number;
  /** Name of the dispatch error; absent on success. */
  error?: string;
  detail?: string;
}

/** The state after a block, and what happened in it. */
export interface AppliedBlock {
  state: ChainState;
  events: ChainEvent[];
  receipts: Receipt[];
}

/**
 * The whole rule of the chain: state and block in, state and events out. Deterministic, without
 * side effects; the given state is not changed. Signatures are checked before (checkSignature).
 * @throws InvalidExtrinsicError when an extrinsic may not stand at its place.
 */
export function applyBlock(before: ChainState, input: BlockInput): AppliedBlock {
  const state = cloneState(before);
  const block = before.head.number + 1;
  const timeMs = Math.max(input.timeMs, before.head.timeMs);
  const context: BlockContext = { state, block, timeMs, events: [] };
  beginBlock(context);
  const receipts: Receipt[] = [];
  for (const [index, extrinsic] of input.extrinsics.entries()) {
    context.extrinsic = index;
    receipts.push(applyExtrinsic(context, extrinsic, index));
  }
  const header = {
    parent: before.head.hash,
    number: block,
    timeMs,
    entropy: input.entropy,
    receipts: toHex(canonicalHash(receipts)),
    events: toHex(canonicalHash(context.events)),
  };
  state.head = { number: block, timeMs, hash: toHex(sha256(HASH_DOMAIN, canonicalHash(header))) };
  return { state, events: context.events, receipts };
}

/** Public randomness of a block: SHA256("covenant.randomness" ‖ block hash), 32 bytes. */
export function randomnessOf(blockHash: Uint8Array): Uint8Array {
  return sha256(RANDOMNESS_DOMAIN, blockHash);
}

/** The chain's own steps, before any extrinsic, in Subtensor's order. */
function beginBlock(context: BlockContext): void {
  const { state, block } = context;
  const subnets = [...state.subnets.values()].sort((a, b) => a.netuid - b.netuid);
  for (const subnet of subnets) {
    subnet.registrationsThisBlock = 0;
    decayBurn(subnet);
  }
  for (const subnet of subnets) revealTimelocked(context, subnet);
  for (const subnet of subnets) accrueEmission(state, subnet, block);
  runDueEpochs(context);
}

function applyExtrinsic(context: BlockContext, extrinsic: Extrinsic, index: number): Receipt {
  checkPlace(context.state, extrinsic);
  accountOf(context.state, extrinsic.signer).nonce += 1;
  const receipt = { extrinsicHash: extrinsicHash(extrinsic), block: context.block, index };
  try {
    dispatch(context, extrinsic.signer, extrinsic.call);
    return receipt;
  } catch (error) {
    if (!(error instanceof ModuleError)) throw error;
    const { errorName, message } = error;
    emit(context, "ExtrinsicFailed", { error: errorName });
    return { ...receipt, error: errorName, detail: message };
  }
}

/** How each call changes the state; the signer has already been verified. */
const CALLS: {
  [Name in Call["name"]]: (
    context: BlockContext,
    signer: Address,
    args: CallArguments<Name>,
  ) => void;
} = {
  transfer,
  burnedRegister,
  addStake,
  removeStake,
  serveAxon,
  setCommitment,
  setWeights,
  commitWeights,
  revealWeights,
  commitTimelockedWeights,
  startCall,
  setTempo,
  triggerEpoch,
  setHyperparameters,
  sudoSetSubtokenEnabled,
  sudoSetSubnetEmissionEnabled,
};

function dispatch(context: BlockContext, signer: Address, call: Call): void {
  // The table's type pairs every name with its own arguments; the parser has checked both.
  const apply = CALLS[call.name] as (
    context: BlockContext,
    signer: Address,
    args: Call["args"],
  ) => void;
  apply(context, signer, call.args);
}
