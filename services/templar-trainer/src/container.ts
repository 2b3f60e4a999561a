import { bytesEqual, concatBytes, sha256 } from "@covenant/contracts";

const MAGIC = new TextEncoder().encode("COVTRN1\n");
const DIGEST_BYTES = 32;
/** Longest JSON header that is read. */
const HEADER_BYTES_MAX = 64 * 1024;

/** Named binary sections and a small JSON header: the form of the trainer's files. */
export type Container<Header> = { header: Header; sections: ReadonlyMap<string, Uint8Array> };

/**
 * Bytes of a container: magic, header length, JSON header, sections in order, SHA-256 of all of it. One file holds everything that
 * must change together.
 */
export function encodeContainer<Header>(container: Container<Header>): Uint8Array {
  const sizes = [...container.sections].map(([name, bytes]) => [name, bytes.length]);
  const json = JSON.stringify({ header: container.header, sizes });
  const header = new TextEncoder().encode(json);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, header.length, true);
  const content = concatBytes(MAGIC, length, header, ...container.sections.values());
  return concatBytes(content, sha256(content));
}

/** Reads a container back; throws an Error naming the fault when a single byte is wrong. */
export function decodeContainer<Header>(bytes: Uint8Array): Container<Header> {
  const contentBytes = bytes.length - DIGEST_BYTES;
  const first = MAGIC.length + 4;
  if (contentBytes < first || !bytesEqual(bytes.subarray(0, MAGIC.length), MAGIC)) {
    throw new Error("not a trainer file");
  }
  const content = bytes.subarray(0, contentBytes);
  if (!bytesEqual(sha256(content), bytes.subarray(contentBytes))) {
    throw new Error("checksum does not match");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerBytes = view.getUint32(MAGIC.length, true);
  if (headerBytes > HEADER_BYTES_MAX || first + headerBytes > contentBytes) {
    throw new Error("header is longer than the file");
  }
  const text = new TextDecoder().decode(bytes.subarray(first, first + headerBytes));
  const { header, sizes } = JSON.parse(text) as { header: Header; sizes: [string, number][] };
  const sections = new Map<string, Uint8Array>();
  let at = first + headerBytes;
  for (const [name, size] of sizes) {
    sections.set(name, bytes.subarray(at, at + size));
    at += size;
  }
  if (at !== contentBytes) throw new Error("sections do not fill the file");
  return { header, sections };
}

/** Bytes of a float array, without copying. */
export function floatBytes(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** A float array from bytes, copied, so that alignment does not matter. */
export function floatsOf(bytes: Uint8Array, count: number): Float32Array {
  if (bytes.length !== count * 4) throw new Error(`expected ${count} values`);
  const copy = new Uint8Array(bytes);
  return new Float32Array(copy.buffer);
}
