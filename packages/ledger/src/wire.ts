import { z } from "zod";
import { hyperparametersSchema } from "./state/hyperparameters.ts";

/**
 * Answers of the chain's JSON-RPC, shared by server and client. Amounts of rao travel as decimal
 * text because JSON numbers end at 2^53; bytes travel as hexadecimal text.
 */
const rao = z.string().regex(/^\d{1,30}$/);
const whole = z.number().int().nonnegative();
const hash = z.string().regex(/^[0-9a-f]{64}$/);

/** The newest final block. */
export const headSchema = z.object({ number: whole, hash, timeMs: whole });

/** Which chain this is. */
export const statusSchema = z.object({
  specName: z.literal("covenant-development-chain"),
  specVersion: whole,
  name: z.string(),
  genesisHash: hash,
  blockTimeMs: whole,
  maxEraBlocks: whole,
  head: headSchema,
});

/** How an extrinsic ended. */
export const receiptSchema = z.object({
  extrinsicHash: hash,
  block: whole,
  index: whole,
  error: z.string().optional(),
  detail: z.string().optional(),
});

/** An account; `nextNonce` counts extrinsics that wait for a block. */
export const accountSchema = z.object({ balanceRao: rao, nonce: whole, nextNonce: whole });

const endpointSchema = z.object({ host: z.string(), port: whole, protocol: whole });

/** One line of the metagraph. */
export const neuronSchema = z.object({
  uid: whole,
  hotkey: z.string(),
  coldkey: z.string(),
  stakeRao: rao,
  endpoint: endpointSchema.optional(),
  validatorPermit: z.boolean(),
  active: z.boolean(),
  stakeWeight: whole,
  consensus: whole,
  incentive: whole,
  dividends: whole,
  validatorTrust: whole,
  emissionRao: rao,
  lastUpdateBlock: whole,
  registeredAtBlock: whole,
});

/** The metagraph with the block it was read at. */
export const metagraphSchema = z.object({ block: whole, neurons: z.array(neuronSchema) });

/** A hotkey's commitment. */
export const commitmentSchema = z.object({
  hotkey: z.string(),
  fields: z.array(z.string()),
  block: whole,
  index: whole,
});

/** A subnet apart from its neurons. */
export const subnetSchema = z.object({
  netuid: whole,
  block: whole,
  ownerColdkey: z.string(),
  ownerHotkey: z.string(),
  hyperparameters: z.preprocess(
    (value) => (typeof value === "object" && value !== null ? value : {}),
    hyperparametersSchema,
  ),
  burnRao: rao,
  neuronCount: whole,
  started: z.boolean(),
  subtokenEnabled: z.boolean(),
  emissionEnabled: z.boolean(),
  emitting: z.boolean(),
  pendingServerRao: rao,
  pendingValidatorRao: rao,
  pendingOwnerRao: rao,
  lastEpochBlock: whole,
  nextEpochBlock: whole,
  epochIndex: whole,
});

/** Stored weights: one row of [uid, u16] pairs per uid. */
export const weightsSchema = z.object({
  rows: z.array(z.array(z.tuple([whole, whole]))),
});

/** Where all rao has gone. */
export const issuanceSchema = z.object({
  genesisRao: rao,
  emittedRao: rao,
  recycledRao: rao,
  burnedRao: rao,
});

/** Codes of JSON-RPC errors that the chain answers with. */
export const RPC_ERRORS = {
  parse: -32_700,
  invalidRequest: -32_600,
  methodNotFound: -32_601,
  invalidParams: -32_602,
  internal: -32_603,
  /** Data carries `name`: a Subtensor error name, or BlockNotFinal, DeadlineExceeded, Unavailable. */
  server: -32_000,
  /** Substrate's "invalid transaction"; data carries `invalid`: the reason. */
  invalidTransaction: 1010,
  /** Substrate's "pool is full". */
  poolFull: 1016,
} as const;

/** Response headers by which a client notices another chain or a head that went back. */
export const HEAD_HEADER = "x-covenant-head";
/** See HEAD_HEADER. */
export const GENESIS_HEADER = "x-covenant-genesis";
/** Longest time that one call may wait on the server. */
export const WAIT_MS_MAX = 30_000;
