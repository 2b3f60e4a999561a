/** Where the training loop stops when its operator asks it to. */
export class Gate {
  #paused: Promise<void> | undefined;
  #open: () => void = () => {};
  #draining = false;

  /** True while paused. */
  get isPaused(): boolean {
    return this.#paused !== undefined;
  }

  /** True once the trainer was asked to finish its round and exit. */
  get isDraining(): boolean {
    return this.#draining;
  }

  /** Closes the gate: the next pass waits. */
  pause(): void {
    this.#paused ??= new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  /** Opens the gate. */
  resume(): void {
    this.#open();
    this.#paused = undefined;
  }

  /** Asks the loop to end after the present round; also opens the gate. */
  drain(): void {
    this.#draining = true;
    this.resume();
  }

  /** Returns at once when open; otherwise when opened or aborted. */
  async pass(signal: AbortSignal): Promise<void> {
    if (this.#paused === undefined) return;
    const aborted = Promise.withResolvers<void>();
    const onAbort = () => aborted.resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    await Promise.race([this.#paused, aborted.promise]);
    signal.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
  }
}
