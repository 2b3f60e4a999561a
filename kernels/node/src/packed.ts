import { awaitKernel } from "./errors.ts";
import { native } from "./native.ts";
import { nativeFormat } from "./sparse.ts";
import type { SparseFormat, TensorInfo } from "./types.ts";

/** First bytes of a packed update: its format and version. */
const packedMagic = [..."CVP1"].map((letter) => letter.charCodeAt(0));

/** True when the bytes claim to be the packed form of an update; whether they are, unpackUpdate says. */
export function isPackedUpdate(bytes: Uint8Array): boolean {
  return packedMagic.every((byte, at) => bytes[at] === byte);
}

/**
 * An update in fewer bytes, for transport: entropy-coded, exact, the same bytes on every machine. Rejects as `decode`
 * does for a body that breaks a rule of the format.
 */
export function packUpdate(
  body: Uint8Array,
  tensors: readonly TensorInfo[],
  format: SparseFormat,
  options: { threads?: number } = {},
): Promise<Uint8Array> {
  const { threads } = options;
  return awaitKernel(() =>
    native().packUpdate(body, tensors, { ...nativeFormat(format), threads }),
  );
}

/**
 * The body of a packed update, validated. Its size follows from the table, whatever the bytes claim; anything but the
 * one packed form of a valid body rejects with a COV_SPARSE_*.
 */
export function unpackUpdate(
  packed: Uint8Array,
  tensors: readonly TensorInfo[],
  format: SparseFormat,
  options: { threads?: number } = {},
): Promise<Uint8Array> {
  const { threads } = options;
  return awaitKernel(async () => {
    const shape = nativeFormat(format);
    const body = new Uint8Array(native().sparseSize(tensors, shape).bodyBytes);
    await native().unpackUpdate(packed, tensors, { ...shape, threads }, body);
    return body;
  });
}
