import { bytesEqual, concatBytes, sha256 } from "@covenant/contracts";
import { u32Bytes, utf8 } from "./bytes.ts";

/** Longest field the ledger takes. */
const FIELD_BYTES_MAX = 128;

/**
 * Fields a peer commits on the ledger before its payload becomes readable: its bucket's name and
 * SHA256(round LE u32 || SHA256 of the payload). The ledger's order of these decides who copied whom.
 */
export function updateCommitment(
  bucket: string,
  round: number,
  payloadSha256: Uint8Array,
): Uint8Array[] {
  const name = utf8(bucket);
  if (name.length === 0 || name.length > FIELD_BYTES_MAX) throw new RangeError("bad bucket name");
  return [name, sha256(concatBytes(u32Bytes(round), payloadSha256))];
}

/** True when the fields commit to exactly this payload in this round and bucket. */
export function commitmentMatches(
  fields: readonly Uint8Array[],
  bucket: string,
  round: number,
  payloadSha256: Uint8Array,
): boolean {
  const expected = updateCommitment(bucket, round, payloadSha256);
  return (
    fields.length === expected.length &&
    expected.every((field, index) => bytesEqual(field, fields[index]!))
  );
}

/** The bucket a commitment names, or undefined when the fields are not an update commitment. */
export function committedBucket(fields: readonly Uint8Array[]): string | undefined {
  if (fields.length !== 2 || fields[1]!.length !== 32) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(fields[0]);
  } catch {
    return undefined;
  }
}

/** Key of a peer's payload in its own bucket. */
export function updateKey(round: number): string {
  return `updates/${round}`;
}
