import { awaitKernel, oneOf } from "./errors.ts";
import { native } from "./native.ts";
import type { ActivationOptions } from "./types.ts";

const kinds = { bf16: 0, int8: 1, int4: 2 };

/**
 * What leads from one version of bf16 weights to the next, exact on bits: little-endian weights as in a checkpoint,
 * both of the same length. The delta names the hashes of both.
 */
export function encodeDelta(
  base: Uint8Array,
  next: Uint8Array,
  options: { threads?: number } = {},
): Promise<Uint8Array> {
  return awaitKernel(() => native().encodeDelta(base, next, options));
}

/**
 * The next version of the weights. Rejects with COV_DELTA_WRONG_BASE when the delta was made from other weights, with
 * another COV_DELTA_* when it is damaged; `base` stays as it is.
 */
export function applyDelta(
  base: Uint8Array,
  delta: Uint8Array,
  options: { threads?: number } = {},
): Promise<Uint8Array> {
  return awaitKernel(async () => {
    const next = new Uint8Array(base.length);
    await native().applyDelta(base, delta, next, options);
    return next;
  });
}

function nativeShape({ codec, rows, width, threads }: ActivationOptions) {
  return { kind: oneOf("codec", kinds, codec), rows, width, threads };
}

/**
 * Row-major activations (or gradients) as the bytes of a codec. Rounding is straight-through: the gradient of what
 * was encoded is that of what is decoded. Rejects with COV_KERNELS_NON_FINITE for NaN and infinity.
 */
export function encodeActivations(
  values: Float32Array,
  options: ActivationOptions,
): Promise<Uint8Array> {
  return awaitKernel(async () => {
    const shape = nativeShape(options);
    const payload = new Uint8Array(native().activationSize(shape));
    await native().encodeActivations(values, shape, payload);
    return payload;
  });
}

/** The values of a payload; anything but the agreed codec and shape rejects with COV_KERNELS_MALFORMED. */
export function decodeActivations(
  payload: Uint8Array,
  options: ActivationOptions,
): Promise<Float32Array> {
  return awaitKernel(async () => {
    const shape = nativeShape(options);
    if (payload.length !== native().activationSize(shape)) {
      // The addon says what is wrong before anything of the announced size is allocated.
      await native().decodeActivations(new Float32Array(), { ...shape, rows: 0 }, payload);
    }
    const values = new Float32Array(options.rows * options.width);
    await native().decodeActivations(values, shape, payload);
    return values;
  });
}
