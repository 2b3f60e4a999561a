/** Every code a kernel call can fail with. */
export const kernelErrorCodes = [
  /** The addon is missing or does not load; `npm run build:kernels` makes it. */
  "COV_KERNELS_NOT_BUILT",
  /** An argument that can never be valid; the message names it. */
  "COV_KERNELS_INVALID_ARGUMENT",
  /** A token or position outside the model's range. */
  "COV_KERNELS_OUT_OF_RANGE",
  /** NaN or infinity in weights, gradients or results. */
  "COV_KERNELS_NON_FINITE",
  /** The system refused an allocation. */
  "COV_KERNELS_OUT_OF_MEMORY",
  /** The model's own memoryLimitBytes would be exceeded. */
  "COV_KERNELS_MEMORY_LIMIT",
  /** The caller's AbortSignal was aborted. */
  "COV_KERNELS_CANCELLED",
  /** A call out of order, e.g. backward without a kept forward. */
  "COV_KERNELS_FAILED_PRECONDITION",
  /** Bytes that do not follow their format. */
  "COV_KERNELS_MALFORMED",
  /** Something this machine cannot do. */
  "COV_KERNELS_UNSUPPORTED",
  /** A queue is full; the same call may succeed later. */
  "COV_KERNELS_BUSY",
  /** A defect in the kernels. */
  "COV_KERNELS_INTERNAL",
  /** The model, generator or adapter was closed. */
  "COV_KERNELS_CLOSED",
  /** Too many jobs wait for the engine thread. */
  "COV_KERNELS_QUEUE_FULL",
  "COV_DELTA_WRONG_MAGIC",
  "COV_DELTA_WRONG_COUNT",
  "COV_DELTA_WRONG_SIZE",
  /** The delta was made from other weights than those at hand. */
  "COV_DELTA_WRONG_BASE",
  "COV_DELTA_MALFORMED",
  /** Decodes, but not to the weights that it names. */
  "COV_DELTA_WRONG_RESULT",
  "COV_SPARSE_WRONG_MAGIC",
  "COV_SPARSE_WRONG_MODE",
  "COV_SPARSE_WRONG_KEEP",
  "COV_SPARSE_WRONG_TENSOR_COUNT",
  "COV_SPARSE_WRONG_SIZE",
  "COV_SPARSE_SCALE_OUT_OF_BOUNDS",
  "COV_SPARSE_LEVELS_OUT_OF_ORDER",
  "COV_SPARSE_BITMAP_INVALID",
  "COV_SPARSE_INDEX_OUT_OF_RANGE",
  "COV_SPARSE_INDEX_NOT_ASCENDING",
  "COV_SPARSE_TRAILING_BITS",
  "COV_SPARSE_NOT_CANONICAL",
  /** NaN or infinity in what is to be compressed; the message names the tensor. */
  "COV_SPARSE_NON_FINITE",
  /** Values around or above 2^100 in what is to be compressed. */
  "COV_SPARSE_MAGNITUDE_TOO_LARGE",
] as const;

/** A code of {@link kernelErrorCodes}. */
export type KernelErrorCode = (typeof kernelErrorCodes)[number];

/** What every kernel call throws or rejects with. Codes `COV_SPARSE_*` and `COV_DELTA_*` are reasons to refuse one. */
export class KernelError extends Error {
  override readonly name = "KernelError";
  readonly code: KernelErrorCode;

  constructor(code: KernelErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

function isKernelErrorCode(code: unknown): code is KernelErrorCode {
  return kernelErrorCodes.some((known) => known === code);
}

/** The KernelError of an error of the addon; anything else as it is. */
export function asKernelError(error: unknown): unknown {
  if (error instanceof KernelError || !(error instanceof Error)) return error;
  const code: unknown = Reflect.get(error, "code");
  return isKernelErrorCode(code) ? new KernelError(code, error.message, { cause: error }) : error;
}

/** What `table` has under a name that a caller gave; the error for any other name lists those that there are. */
export function oneOf<T>(what: string, table: Readonly<Record<string, T>>, name: string): T {
  if (Object.hasOwn(table, name)) return table[name] as T;
  throw new KernelError(
    "COV_KERNELS_INVALID_ARGUMENT",
    `There is no ${what} ${String(name)}; there are ${Object.keys(table).join(", ")}.`,
  );
}

/** Runs a short call of the addon. */
export function callKernel<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw asKernelError(error);
  }
}

/** Awaits a job of the addon; its rejection, or what submitting it throws, becomes a KernelError. */
export async function awaitKernel<T>(submit: () => Promise<T>): Promise<T> {
  try {
    return await submit();
  } catch (error) {
    throw asKernelError(error);
  }
}
