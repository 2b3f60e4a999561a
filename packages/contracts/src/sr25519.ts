/**
 * sr25519 (Schnorr over ristretto255, as schnorrkel does it) with a chosen signing context. The mesh
 * signs under "covenant" and the ledger under "substrate", so that neither can be made to sign for
 * the other. Nonces come from the secret and the message alone: signing twice gives the same bytes.
 */
import { mod } from "@noble/curves/abstract/modular.js";
import { ed25519, ristretto255 } from "@noble/curves/ed25519.js";
import { bytesToNumberLE, numberToBytesLE } from "@noble/curves/utils.js";
import { getPublicKey, secretFromSeed } from "@scure/sr25519";
import { concatBytes, sha256 } from "./hash.ts";
import { Transcript } from "./merlin.ts";

/** Context of everything the mesh signs. */
export const COVENANT_CONTEXT = "covenant";
/** Context of ledger extrinsics. */
export const SUBSTRATE_CONTEXT = "substrate";

const ORDER = ed25519.Point.Fn.ORDER;
const MARKER = 0x80;
const text = new TextEncoder();

/** A key pair made from a seed. */
export interface SecretPair {
  /** 64 bytes: scalar (times the cofactor) and nonce seed. */
  secretKey: Uint8Array;
  /** 32 bytes. */
  publicKey: Uint8Array;
}

/** The pair of a 32-byte mini secret, as wallets derive it; throws a RangeError on another length. */
export function pairFromSeed(seed: Uint8Array): SecretPair {
  if (seed.length !== 32) throw new RangeError(`Expected a seed of 32 bytes, got ${seed.length}`);
  const secretKey = secretFromSeed(seed);
  return { secretKey, publicKey: getPublicKey(secretKey) };
}

/** 64-byte signature of `message` under `context`; deterministic unless `random` (32 bytes) is given. */
export function signWithContext(
  context: string,
  pair: SecretPair,
  message: Uint8Array,
  random: Uint8Array = sha256(text.encode("covenant.nonce"), pair.secretKey, message),
): Uint8Array {
  const scalar = bytesToNumberLE(pair.secretKey.subarray(0, 32)) >> 3n;
  const transcript = begin(context, message, pair.publicKey);
  const nonce = reduce(transcript.witness("signing", 64, pair.secretKey.subarray(32), random));
  const commitment = ristretto255.Point.BASE.multiply(nonce).toBytes();
  transcript.append("sign:R", commitment);
  const challenge = reduce(transcript.challenge("sign:c", 64));
  const response = numberToBytesLE(mod(challenge * scalar + nonce, ORDER), 32);
  const signature = concatBytes(commitment, response);
  signature[63]! |= MARKER;
  return signature;
}

/** True when `signature` is this key's signature of `message` under `context`. Never throws. */
export function verifyWithContext(
  context: string,
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (publicKey.length !== 32 || signature.length !== 64 || !(signature[63]! & MARKER))
    return false;
  const commitment = signature.subarray(0, 32);
  const responseBytes = signature.slice(32);
  responseBytes[31]! &= ~MARKER;
  const response = bytesToNumberLE(responseBytes);
  if (response >= ORDER) return false;
  try {
    const key = ristretto255.Point.fromBytes(publicKey);
    const expected = ristretto255.Point.fromBytes(commitment);
    if (key.equals(ristretto255.Point.ZERO)) return false;
    const transcript = begin(context, message, publicKey);
    transcript.append("sign:R", commitment);
    const challenge = reduce(transcript.challenge("sign:c", 64));
    const base = response === 0n ? ristretto255.Point.ZERO : multiplyBase(response);
    return key.negate().multiply(challenge).add(base).equals(expected);
  } catch {
    // Bytes that are no point of the group: not a signature.
    return false;
  }
}

function multiplyBase(scalar: bigint) {
  return ristretto255.Point.BASE.multiply(scalar);
}

function begin(context: string, message: Uint8Array, publicKey: Uint8Array): Transcript {
  const transcript = new Transcript("SigningContext");
  transcript.append("", text.encode(context));
  transcript.append("sign-bytes", message);
  transcript.append("proto-name", text.encode("Schnorr-sig"));
  transcript.append("sign:pk", publicKey);
  return transcript;
}

function reduce(bytes: Uint8Array): bigint {
  return mod(bytesToNumberLE(bytes), ORDER);
}
