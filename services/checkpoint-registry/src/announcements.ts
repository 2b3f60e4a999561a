// Wakes those who wait for the next checkpoint. Holds no queue: who wakes looks into the index.

/** A bell that any number of waiters hear. */
export class Announcements {
  #bell = Promise.withResolvers<void>();

  /** Wakes everybody who waits. */
  ring(): void {
    this.#bell.resolve();
    this.#bell = Promise.withResolvers<void>();
  }

  /** Resolves at the next ring. Take it before looking, so that no ring falls between look and wait. */
  next(): Promise<void> {
    return this.#bell.promise;
  }
}

/** Resolves when the promise does or the signal aborts, whichever is first. */
export async function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const stop = (): void => resolve();
  signal.addEventListener("abort", stop, { once: true });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
