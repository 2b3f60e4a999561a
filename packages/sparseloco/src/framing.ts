import { fromBinary } from "@bufbuild/protobuf";
import { bytesEqual, canonicalBytes, concatBytes, sha256 } from "@covenant/contracts";
import { type SparseUpdate, SparseUpdateSchema } from "@covenant/contracts/templar";
import { readU32, u32Bytes } from "./bytes.ts";
import { accepted, type Checked, refused } from "./result.ts";

/** A header lists one hash per MiB of body, so this allows bodies of about 1.8 GiB. */
export const HEADER_BYTES_MAX = 64 * 1024;
/** Piece of the body that one hash in the header covers. */
export const BODY_CHUNK_BYTES = 1024 * 1024;
const PREFIX_BYTES = 4;
/** What a payload may have beyond its body. */
export const PAYLOAD_OVERHEAD_BYTES = HEADER_BYTES_MAX + PREFIX_BYTES;

/** A payload taken apart: views into the given bytes, nothing copied. */
export type Payload = { header: SparseUpdate; body: Uint8Array };

/** SHA-256 of each 1 MiB chunk of a body, the last one shorter. */
export function bodyHashes(body: Uint8Array): Uint8Array[] {
  const hashes: Uint8Array[] = [];
  for (let at = 0; at < body.length; at += BODY_CHUNK_BYTES) {
    hashes.push(sha256(body.subarray(at, at + BODY_CHUNK_BYTES)));
  }
  return hashes;
}

/** The stored object: header length (u32 LE), canonical header, body. */
export function framePayload(header: SparseUpdate, body: Uint8Array): Uint8Array {
  const headerBytes = canonicalBytes(SparseUpdateSchema, header);
  if (headerBytes.length > HEADER_BYTES_MAX) throw new RangeError("header too long");
  return concatBytes(u32Bytes(headerBytes.length), headerBytes, body);
}

/**
 * Takes a stored object apart. Every length is checked before anything is allocated or decoded; the header must be
 * canonical, so that one header has exactly one spelling. The body's hashes are checked here, its content is not.
 */
export function parsePayload(bytes: Uint8Array, payloadBytesMax: number): Checked<Payload> {
  if (bytes.length > payloadBytesMax) {
    return refused(
      "TOO_LARGE",
      `payload has ${bytes.length} bytes, the limit is ${payloadBytesMax}`,
    );
  }
  if (bytes.length < PREFIX_BYTES) return refused("TRUNCATED", "payload has no header length");
  const headerBytes = readU32(bytes, 0);
  if (headerBytes > HEADER_BYTES_MAX) {
    return refused(
      "TOO_LARGE",
      `header claims ${headerBytes} bytes, the limit is ${HEADER_BYTES_MAX}`,
    );
  }
  if (PREFIX_BYTES + headerBytes > bytes.length) {
    return refused(
      "TRUNCATED",
      `header claims ${headerBytes} bytes, ${bytes.length - 4} are there`,
    );
  }
  const encoded = bytes.subarray(PREFIX_BYTES, PREFIX_BYTES + headerBytes);
  const header = decodeHeader(encoded);
  if (header === undefined) return refused("MALFORMED", "header is not a SparseUpdate");
  if (!bytesEqual(canonicalBytes(SparseUpdateSchema, header), encoded)) {
    return refused("NOT_CANONICAL", "header is not in canonical form");
  }
  const body = bytes.subarray(PREFIX_BYTES + headerBytes);
  return checkBody(header, body);
}

function decodeHeader(encoded: Uint8Array): SparseUpdate | undefined {
  try {
    return fromBinary(SparseUpdateSchema, encoded);
  } catch {
    return undefined;
  }
}

function checkBody(header: SparseUpdate, body: Uint8Array): Checked<Payload> {
  if (header.bodyBytes !== BigInt(body.length)) {
    return refused("TRUNCATED", `header says ${header.bodyBytes} body bytes, found ${body.length}`);
  }
  const chunks = Math.ceil(body.length / BODY_CHUNK_BYTES);
  if (header.bodySha256.length !== chunks) {
    return refused(
      "MALFORMED",
      `header has ${header.bodySha256.length} hashes for ${chunks} chunks`,
    );
  }
  const bad = bodyHashes(body).findIndex((hash, i) => !bytesEqual(hash, header.bodySha256[i]!));
  if (bad >= 0) return refused("HASH_MISMATCH", `body chunk ${bad} differs from its hash`);
  return accepted({ header, body });
}
