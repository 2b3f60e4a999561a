/** Hotkeys: who a participant is, and signatures over bytes and messages. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { clone, create } from "@bufbuild/protobuf";
import { canonicalBytes } from "./canonical.ts";
import type { Signature } from "./gen/covenant/common/v1/common_pb.ts";
import { SignatureSchema } from "./gen/covenant/common/v1/common_pb.ts";
import { COVENANT_CONTEXT, pairFromSeed, signWithContext, verifyWithContext } from "./sr25519.ts";
import { ss58Decode, ss58Encode } from "./ss58.ts";

/** A participant's sr25519 identity. The secret stays inside. */
export interface Hotkey {
  /** SS58 address, prefix 42. */
  readonly address: string;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 64-byte signature under context "covenant"; the same bytes every time. */
  sign(bytes: Uint8Array): Uint8Array;
}

/** A message that carries its author's signature in a field named `signature`. */
export type Signable = { signature?: Signature | undefined };

/** The hotkey of a 32-byte mini secret; throws a RangeError on another length. */
export function hotkeyFromSeed(seed: Uint8Array): Hotkey {
  const pair = pairFromSeed(seed);
  return {
    address: ss58Encode(pair.publicKey),
    publicKey: pair.publicKey,
    sign: (bytes) => signWithContext(COVENANT_CONTEXT, pair, bytes),
  };
}

/** True when the hotkey at `address` signed `bytes`; false for malformed input, never throws. */
export function verifySignature(
  address: string,
  bytes: Uint8Array,
  signature: Uint8Array,
): boolean {
  let publicKey: Uint8Array;
  try {
    publicKey = ss58Decode(address);
  } catch {
    return false;
  }
  return verifyWithContext(COVENANT_CONTEXT, publicKey, bytes, signature);
}

/** A signature over the canonical bytes of `message` with its own `signature` field cleared. */
export function signMessage<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
  hotkey: Hotkey,
): Signature {
  const value = hotkey.sign(signedBytes(schema, message));
  return create(SignatureSchema, { hotkey: hotkey.address, value });
}

/**
 * True when `message.signature` is its named hotkey's signature of everything else in the message.
 * It says who signed, not that they were allowed to: compare `signature.hotkey` with whom you expect.
 */
export function verifyMessage<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): boolean {
  const { signature } = message as Signable;
  if (!signature) return false;
  return verifySignature(signature.hotkey, signedBytes(schema, message), signature.value);
}

/** The bytes that `signMessage` signs and detached signatures (quorums) are made over. */
export function signedBytes<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): Uint8Array {
  if (!(message as Signable).signature) return canonicalBytes(schema, message);
  const unsigned = clone(schema, message);
  delete (unsigned as Signable).signature;
  return canonicalBytes(schema, unsigned);
}
