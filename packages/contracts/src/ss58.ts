/** SS58 addresses (prefix 42, the generic Substrate network): a public key as people write it. */
import { blake2b } from "@noble/hashes/blake2.js";
import { base58 } from "@scure/base";
import { bytesEqual, concatBytes } from "./hash.ts";

const NETWORK_PREFIX = 42;
const CHECKSUM_BYTES = 2;
const PUBLIC_KEY_BYTES = 32;
const ADDRESS_CHARACTERS_MAX = 64;
const CHECKSUM_DOMAIN = new TextEncoder().encode("SS58PRE");

/** The address of a 32-byte public key; throws a RangeError on another length. */
export function ss58Encode(publicKey: Uint8Array): string {
  if (publicKey.length !== PUBLIC_KEY_BYTES) {
    throw new RangeError(`Expected a public key of 32 bytes, got ${publicKey.length}`);
  }
  const body = concatBytes(Uint8Array.of(NETWORK_PREFIX), publicKey);
  return base58.encode(concatBytes(body, checksum(body)));
}

/** The public key of an address; throws a RangeError on bad text, prefix or checksum. */
export function ss58Decode(address: string): Uint8Array {
  let bytes: Uint8Array | undefined;
  try {
    if (address.length <= ADDRESS_CHARACTERS_MAX) bytes = base58.decode(address);
  } catch {
    // Reported below with everything else that is not an address.
  }
  if (bytes?.length !== 1 + PUBLIC_KEY_BYTES + CHECKSUM_BYTES || bytes[0] !== NETWORK_PREFIX) {
    throw new RangeError(`Not an SS58 address of network ${NETWORK_PREFIX}`);
  }
  const body = bytes.subarray(0, 1 + PUBLIC_KEY_BYTES);
  if (!bytesEqual(bytes.subarray(1 + PUBLIC_KEY_BYTES), checksum(body))) {
    throw new RangeError("SS58 checksum does not match: the address has a typing error");
  }
  return body.slice(1);
}

function checksum(body: Uint8Array): Uint8Array {
  return blake2b(concatBytes(CHECKSUM_DOMAIN, body), { dkLen: 64 }).subarray(0, CHECKSUM_BYTES);
}
