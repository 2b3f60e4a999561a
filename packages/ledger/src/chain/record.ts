import { crc32 } from "node:zlib";

/**
 * Records of the block log: [length u32][crc32 of payload u32][crc32 of these 8 bytes u32][payload],
 * little endian. The header has its own checksum so that a damaged length is seen as damage and not
 * as a record that reaches past the end of the file.
 */
const HEADER_BYTES = 12;
/** Largest payload: a full block with room to spare. */
export const RECORD_BYTES_MAX = 16 * 1024 * 1024;

/** A payload with its header. */
export function encodeRecord(payload: Uint8Array): Uint8Array {
  if (payload.length > RECORD_BYTES_MAX) throw new RangeError("record larger than its limit");
  const record = Buffer.alloc(HEADER_BYTES + payload.length);
  record.writeUInt32LE(payload.length, 0);
  record.writeUInt32LE(crc32(payload), 4);
  record.writeUInt32LE(crc32(record.subarray(0, 8)), 8);
  record.set(payload, HEADER_BYTES);
  return record;
}

/** What a log file holds. */
export interface ScannedRecords {
  payloads: Uint8Array[];
  /** Where the last whole record ends. */
  endOffset: number;
  /**
   * "clean": the file ends there. "torn": one unfinished record follows, as a crash leaves it.
   * "corrupt": something unreadable is followed by a whole record, so data was lost in the middle.
   */
  tail: "clean" | "torn" | "corrupt";
}

/** Reads records from `startOffset` to the end of the file's bytes. Never throws. */
export function scanRecords(file: Buffer, startOffset: number): ScannedRecords {
  const payloads: Uint8Array[] = [];
  let offset = startOffset;
  for (;;) {
    const payload = readRecord(file, offset);
    if (payload === undefined) break;
    payloads.push(payload);
    offset += HEADER_BYTES + payload.length;
  }
  if (offset >= file.length) return { payloads, endOffset: offset, tail: "clean" };
  for (let later = offset + 1; later <= file.length - HEADER_BYTES; later++) {
    if (readRecord(file, later) !== undefined) {
      return { payloads, endOffset: offset, tail: "corrupt" };
    }
  }
  return { payloads, endOffset: offset, tail: "torn" };
}

function readRecord(file: Buffer, offset: number): Uint8Array | undefined {
  if (offset + HEADER_BYTES > file.length) return undefined;
  const payloadBytes = file.readUInt32LE(offset);
  if (payloadBytes === 0 || payloadBytes > RECORD_BYTES_MAX) return undefined;
  const end = offset + HEADER_BYTES + payloadBytes;
  if (end > file.length) return undefined;
  if (crc32(file.subarray(offset, offset + 8)) !== file.readUInt32LE(offset + 8)) return undefined;
  const payload = file.subarray(offset + HEADER_BYTES, end);
  return crc32(payload) === file.readUInt32LE(offset + 4) ? payload : undefined;
}
