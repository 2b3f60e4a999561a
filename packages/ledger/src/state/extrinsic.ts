import { fromHex, toHex, verifySignature } from "@covenant/contracts";
import { z } from "zod";
import { type Call, callSchema } from "./calls.ts";
import { canonicalHash, canonicalJson } from "./canonical-json.ts";
import { InvalidExtrinsicError } from "./errors.ts";
import type { ChainState } from "./types.ts";

/** Domain of extrinsic signatures; the genesis hash follows it. */
const SIGNING_DOMAIN = "covenant.extrinsic.v1";
/** Bound on nonces and block numbers on the wire. */
const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

/** A signed call. Valid in blocks birthBlock+1 … birthBlock+periodBlocks, once. */
export const extrinsicSchema = z.strictObject({
  signer: z.string().min(1).max(64),
  nonce: counter,
  birthBlock: counter,
  periodBlocks: z.number().int().min(1).max(65_536),
  /** Tells equal calls apart that two clients of one key sign at the same time. */
  salt: z.string().regex(/^[0-9a-f]{16}$/),
  call: callSchema,
  signature: z.string().regex(/^[0-9a-f]{128}$/),
});

/** A signed call as it travels and is stored. */
export type Extrinsic = z.output<typeof extrinsicSchema>;
/** An extrinsic before its signature. */
export type UnsignedExtrinsic = Omit<Extrinsic, "signature">;

/** Whoever can sign for an address. */
export interface Signer {
  readonly address: string;
  sign(bytes: Uint8Array): Uint8Array;
}

/** The bytes that a signer signs: they bind the call to one chain, one nonce and one life span. */
export function signingBytes(unsigned: UnsignedExtrinsic, genesisHash: string): Uint8Array {
  const { signature: _none, ...body } = { signature: "", ...unsigned };
  const text = canonicalJson(body);
  return new TextEncoder().encode(`${SIGNING_DOMAIN}\n${genesisHash}\n${text}`);
}

/** Signs a call for exactly one place in the signer's history. */
export function signExtrinsic(
  options: {
    call: Call;
    nonce: number;
    birthBlock: number;
    periodBlocks: number;
    salt: string;
    genesisHash: string;
  },
  signer: Signer,
): Extrinsic {
  const { genesisHash, ...rest } = options;
  const unsigned = { ...rest, signer: signer.address };
  return { ...unsigned, signature: toHex(signer.sign(signingBytes(unsigned, genesisHash))) };
}

/**
 * Identity of an extrinsic (hexadecimal, 32 bytes). The signature is left out: whoever can sign twice
 * for one body has made the same extrinsic.
 */
export function extrinsicHash(extrinsic: Extrinsic): string {
  const { signature: _signature, ...body } = extrinsic;
  return toHex(canonicalHash(body));
}

/** Checks shape; throws InvalidExtrinsicError("call") that names the first wrong field. */
export function parseExtrinsic(value: unknown): Extrinsic {
  const parsed = extrinsicSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new InvalidExtrinsicError(
    "call",
    `${issue.path.join(".") || "extrinsic"}: ${issue.message}`,
  );
}

/** Throws InvalidExtrinsicError("badProof") unless the signer signed it for this chain. */
export function checkSignature(extrinsic: Extrinsic, genesisHash: string): void {
  const bytes = signingBytes(extrinsic, genesisHash);
  if (!verifySignature(extrinsic.signer, bytes, fromHex(extrinsic.signature))) {
    throw new InvalidExtrinsicError("badProof", "signature does not match signer, call and chain");
  }
}

/** Throws unless the extrinsic may enter the block after the state's head, `ahead` nonces later. */
export function checkPlace(state: ChainState, extrinsic: Extrinsic, ahead = 0): void {
  const expected = (state.accounts.get(extrinsic.signer)?.nonce ?? 0) + ahead;
  if (extrinsic.nonce !== expected) {
    const reason = extrinsic.nonce < expected ? "stale" : "future";
    throw new InvalidExtrinsicError(reason, `nonce ${extrinsic.nonce}, expected ${expected}`);
  }
  const block = state.head.number + 1;
  const { birthBlock } = extrinsic;
  const periodBlocks = Math.min(extrinsic.periodBlocks, state.parameters.maxEraBlocks);
  if (block <= birthBlock || block > birthBlock + periodBlocks) {
    throw new InvalidExtrinsicError(
      "ancientBirthBlock",
      `valid for ${periodBlocks} blocks after ${birthBlock}, next block is ${block}`,
    );
  }
}
