import { KernelError } from "./errors.ts";

/** A flag that the engine reads between tokens, set when the signal aborts. */
export function cancellation(signal: AbortSignal | undefined) {
  const flag = new Int32Array(1);
  const abort = () => {
    Atomics.store(flag, 0, 1);
  };
  signal?.addEventListener("abort", abort, { once: true });
  return { flag, abort, release: () => signal?.removeEventListener("abort", abort) };
}

/** A call whose signal is aborted already does not begin. */
export function throwIfAborted(signal: AbortSignal | undefined) {
  if (!signal?.aborted) return;
  throw new KernelError("COV_KERNELS_CANCELLED", "The caller aborted before the job began.", {
    cause: signal.reason,
  });
}
