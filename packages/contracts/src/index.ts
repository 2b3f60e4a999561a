/**
 * What every part of the mesh must agree on bit for bit: canonical bytes, hashes, Merkle trees,
 * counter-based randomness, addresses and signatures. Pure: no clock, disk, network or randomness.
 */
export { canonicalBytes } from "./canonical.ts";
export { bytesEqual, concatBytes, fromHex, sha256, toHex } from "./hash.ts";
export type { Hotkey, Signable } from "./hotkey.ts";
export {
  hotkeyFromSeed,
  signedBytes,
  signMessage,
  verifyMessage,
  verifySignature,
} from "./hotkey.ts";
export { merklePath, merkleRoot, verifyMerklePath } from "./merkle.ts";
export type { PhiloxBlock, PhiloxKey } from "./philox.ts";
export { philox4x32, uniformAt } from "./philox.ts";
export type { SecretPair } from "./sr25519.ts";
export {
  COVENANT_CONTEXT,
  pairFromSeed,
  SUBSTRATE_CONTEXT,
  signWithContext,
  verifyWithContext,
} from "./sr25519.ts";
export { ss58Decode, ss58Encode } from "./ss58.ts";
