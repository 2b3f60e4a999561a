/** Watchers beyond this number are refused. */
const WATCHERS_MAX = 1024;

/** Tells watchers which rounds have changed; each watcher collects what it has not looked at yet. */
export class Broadcaster {
  readonly #watchers = new Set<Watcher>();

  /** Announces a change. */
  changed(round: number): void {
    for (const watcher of this.#watchers) watcher.add(round);
  }

  /**
   * Numbers of changed rounds, ascending, until aborted. Listens from the call on, before the first step is asked for; changes between two
   * steps are collected, so nobody falls behind.
   */
  watch(signal: AbortSignal): AsyncGenerator<number> {
    if (this.#watchers.size >= WATCHERS_MAX) throw new RangeError("too many watchers");
    const watcher = new Watcher();
    this.#watchers.add(watcher);
    const end = () => {
      this.#watchers.delete(watcher);
      watcher.wake();
    };
    signal.addEventListener("abort", end, { once: true });
    return watcher.rounds(signal);
  }
}

class Watcher {
  readonly #changed = new Set<number>();
  #woken = Promise.withResolvers<void>();

  add(round: number): void {
    this.#changed.add(round);
    this.wake();
  }

  wake(): void {
    this.#woken.resolve();
  }

  async *rounds(signal: AbortSignal): AsyncGenerator<number> {
    while (!signal.aborted) {
      await this.#woken.promise;
      this.#woken = Promise.withResolvers<void>();
      const rounds = [...this.#changed].sort((a, b) => a - b);
      this.#changed.clear();
      yield* rounds;
    }
  }
}
