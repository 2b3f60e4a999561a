import { awaitKernel, callKernel, oneOf } from "./errors.ts";
import { type NativeFormat, native } from "./native.ts";
import type { AggregateOptions, CompressOptions, SparseFormat, TensorInfo } from "./types.ts";

const bitsOfMode = { "2bit": 2, "1bit": 1 };

/** A format as the addon takes it. */
export function nativeFormat(format: SparseFormat): NativeFormat {
  return { keepPerChunk: format.keepPerChunk, mode: oneOf("mode", bitsOfMode, format.mode) };
}

/** Exact size of every update body for a table, and the most values it can hold. */
export function sparseSize(
  tensors: readonly TensorInfo[],
  format: SparseFormat,
): { bodyBytes: number; keptMax: number } {
  return callKernel(() => native().sparseSize(tensors, nativeFormat(format)));
}

/**
 * The body of a `covenant.sparse.v1` update: a = β·e + (θ − θ_r), the largest values of each chunk quantised as D,
 * and e ← a − D in place. Rejects with COV_SPARSE_NON_FINITE or COV_SPARSE_MAGNITUDE_TOO_LARGE naming the tensor;
 * `errorFeedback` is then partly updated and must be reloaded.
 */
export function compress(options: CompressOptions): Promise<Uint8Array> {
  return awaitKernel(async () => {
    const format = nativeFormat(options);
    const body = new Uint8Array(native().sparseSize(options.tensors, format).bodyBytes);
    const { base, current, errorFeedback, tensors, errorDecay, threads } = options;
    const source = { base, current, errorFeedback, tensors, errorDecay, threads };
    await native().compress({ ...source, ...format, body });
    return body;
  });
}

/**
 * The values of an update: flat indices, ascending, and D at them. Everything is validated before anything is
 * allocated; bytes that break a rule of the format reject with the reason (COV_SPARSE_*).
 */
export function decode(
  body: Uint8Array,
  tensors: readonly TensorInfo[],
  format: SparseFormat,
): Promise<{ indices: Uint32Array; values: Float32Array }> {
  return awaitKernel(() => native().decode(body, tensors, nativeFormat(format)));
}

/**
 * One merged update from several, the same bytes on every machine for the same updates in the same order: tensor
 * norms clipped to the median norm if wished, then the weighted mean by `rule`. The message of a rejection says
 * which update was refused.
 */
export function aggregate(options: AggregateOptions): Promise<Uint8Array> {
  return awaitKernel(() => {
    const { updates, weights, tensors, rule, clipToMedianNorm, threads } = options;
    const input = { updates, weights, tensors, rule, clipToMedianNorm, threads };
    return native().aggregate({ ...input, ...nativeFormat(options) });
  });
}

/** θ ← θ − α·A in place. Tensors with a value in A that is not finite are left as they are and reported. */
export function applyMerged(
  parameters: Float32Array,
  merged: Uint8Array,
  tensors: readonly TensorInfo[],
  outerLearningRate: number,
): Promise<{ nonFiniteTensors: number[] }> {
  return awaitKernel(() => native().applyMerged(parameters, merged, tensors, outerLearningRate));
}

/** θ ← θ − scale·D in place, to score a single update. */
export function applyUpdate(
  parameters: Float32Array,
  body: Uint8Array,
  tensors: readonly TensorInfo[],
  scale: number,
  format: SparseFormat,
): Promise<void> {
  return awaitKernel(() =>
    native().applyUpdate(parameters, body, tensors, scale, nativeFormat(format)),
  );
}

/**
 * Merkle root over the tensor table root and the SHA-256 of each piece of at most 1 MiB of each tensor's
 * little-endian fp32 bytes: equal exactly when two parties hold the same model.
 */
export function stateRoot(
  parameters: Float32Array,
  tensors: readonly TensorInfo[],
): Promise<Uint8Array> {
  return awaitKernel(async () => {
    const root = new Uint8Array(32);
    await native().stateRoot(parameters, tensors, root);
    return root;
  });
}
