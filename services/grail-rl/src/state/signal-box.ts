// Tells whoever waits that something changed; what changed they read themselves.

/** A broadcast without content. Waiters never miss a change that comes after `version` was read. */
export class SignalBox {
  #version = 0;
  #waiters = new Set<() => void>();

  /** Counts changes; read it before reading the state that is waited on. */
  get version(): number {
    return this.#version;
  }

  /** Wakes all waiters. */
  notify(): void {
    this.#version++;
    const waiters = this.#waiters;
    this.#waiters = new Set();
    for (const wake of waiters) wake();
  }

  /** Resolves once `version` differs from the given one, or the signal aborts; never rejects. */
  async changed(since: number, signal: AbortSignal): Promise<void> {
    if (this.#version !== since || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const wake = () => {
        this.#waiters.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#waiters.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}

/** Runs functions one after another, in the order of the calls. */
export class Serial {
  #tail: Promise<unknown> = Promise.resolve();

  /** Runs `work` once everything before it has settled; the result is the work's own. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work, work);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}
