// safetensors: 8 bytes header length, a JSON header, then the tensors' bytes without gaps.
// Format: https://huggingface.co/docs/safetensors
import { CheckpointError } from "./errors.ts";

/** Element types that layouts are checked for. Values are bytes per element. */
export const DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const;

/** Name of an element type in a header. */
export type Dtype = keyof typeof DTYPE_BYTES;

/** One tensor; `data` holds its elements little-endian, row-major. */
export interface SafeTensor {
  name: string;
  dtype: Dtype;
  shape: readonly number[];
  data: Uint8Array;
}

/** Largest header accepted; a thousand tensors need about 100 KiB. */
export const HEADER_BYTES_MAX = 16 << 20;
const TENSORS_MAX = 65_536;
const RANK_MAX = 8;
const METADATA_ENTRIES_MAX = 1024;

/** Writes a file; tensors are stored in the order given. The same input gives the same bytes. */
export function writeSafetensors(
  tensors: readonly SafeTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  let offset = 0;
  const header: [string, unknown][] = [["__metadata__", metadata]];
  for (const { name, dtype, shape, data } of tensors) {
    if (data.byteLength !== elements(shape) * DTYPE_BYTES[dtype]) {
      throw new RangeError(`Tensor ${name}: ${data.byteLength} bytes do not fill its shape`);
    }
    const data_offsets = [offset, offset + data.byteLength];
    header.push([name, { dtype, shape, data_offsets }]);
    offset += data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  // Padding with spaces aligns the tensors to 8 bytes, so that readers can map them.
  const headerBytes = Math.ceil(json.byteLength / 8) * 8;
  const file = new Uint8Array(8 + headerBytes + offset).fill(0x20, 8, 8 + headerBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.set(json, 8);
  let at = 8 + headerBytes;
  for (const { data } of tensors) {
    file.set(data, at);
    at += data.byteLength;
  }
  return file;
}

/**
 * Reads a file without copying: each tensor's `data` is a view, in file order. Throws
 * `COV_CHECKPOINT_TENSORS_INVALID` unless header, shapes and offsets are consistent and cover the file exactly.
 */
export function readSafetensors(file: Uint8Array): {
  tensors: SafeTensor[];
  metadata: Record<string, string>;
} {
  const { header, dataStart } = readHeader(file);
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  if (entries.length > TENSORS_MAX) throw invalid(`${entries.length} tensors`);
  const placed = entries
    .map(([name, value]) => ({ name, ...checkEntry(name, value) }))
    // Empty tensors first, so that one does not seem to overlap the tensor that begins where it is.
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  const tensors = placed.map(({ name, dtype, shape, begin, end }) => {
    if (begin !== at) throw invalid(`tensor ${name} begins at ${begin} instead of ${at}`);
    if (end > file.byteLength - dataStart) throw invalid(`tensor ${name} ends after the file`);
    at = end;
    return { name, dtype, shape, data: file.subarray(dataStart + begin, dataStart + end) };
  });
  if (dataStart + at !== file.byteLength) throw invalid("bytes that belong to no tensor");
  return {
    tensors,
    metadata: checkMetadata(Object.hasOwn(header, "__metadata__") ? header.__metadata__ : {}),
  };
}

function readHeader(file: Uint8Array): { header: Record<string, unknown>; dataStart: number } {
  if (file.byteLength < 8) throw invalid("the file ends before its header");
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(Math.min(HEADER_BYTES_MAX, file.byteLength - 8))) {
    throw invalid(`a header of ${length} bytes`);
  }
  const dataStart = 8 + Number(length);
  if (file[8] !== 0x7b) throw invalid("the header is not a JSON object");
  let header: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, dataStart));
    header = JSON.parse(text);
  } catch (error) {
    throw invalid(`the header is not JSON: ${(error as Error).message}`);
  }
  return { header: header as Record<string, unknown>, dataStart };
}

function checkEntry(name: string, value: unknown) {
  const entry = value as { dtype?: unknown; shape?: unknown; data_offsets?: unknown } | null;
  const dtype = entry?.dtype;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    throw invalid(`tensor ${name} has no known dtype`);
  }
  const shape = sizes(entry?.shape, RANK_MAX);
  const offsets = sizes(entry?.data_offsets, 2);
  if (!shape || offsets?.length !== 2)
    throw invalid(`tensor ${name} has no valid shape or offsets`);
  const [begin, end] = offsets as [number, number];
  const bytes = elements(shape) * DTYPE_BYTES[dtype as Dtype];
  if (!Number.isSafeInteger(bytes) || end - begin !== bytes) {
    throw invalid(`the offsets of tensor ${name} do not fit its shape`);
  }
  return { dtype: dtype as Dtype, shape, begin, end };
}

function sizes(value: unknown, countMax: number): number[] | undefined {
  if (!Array.isArray(value) || value.length > countMax) return undefined;
  return value.every((size) => Number.isSafeInteger(size) && size >= 0) ? value : undefined;
}

function checkMetadata(value: unknown): Record<string, string> {
  const entries = typeof value === "object" && value !== null ? Object.entries(value) : [];
  if (
    entries.length > METADATA_ENTRIES_MAX ||
    entries.some(([, text]) => typeof text !== "string")
  ) {
    throw invalid("the metadata is not a map of texts");
  }
  return Object.fromEntries(entries);
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function invalid(what: string): CheckpointError {
  return new CheckpointError("COV_CHECKPOINT_TENSORS_INVALID", `Not valid safetensors: ${what}`);
}
