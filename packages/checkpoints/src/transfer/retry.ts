// Retries with a budget that only progress renews: a transfer ends when it stands still, not when it is long.
import { type Clock, fromUnknown } from "@covenant/runtime";

/** Failures in a row, without progress between them, after which a transfer gives up. */
export const FAILURES_MAX = 5;

const BACKOFF_FIRST_MS = 200;
const BACKOFF_MAX_MS = 5000;

/** Counts failures and waits between attempts. */
export class RetryBudget {
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  #failures = 0;

  constructor(options: { signal?: AbortSignal | undefined }, modules: { clock: Clock }) {
    this.#signal = options.signal;
    this.#clock = modules.clock;
  }

  /** Something arrived: failures before it no longer count. */
  progressed(): void {
    this.#failures = 0;
  }

  /** Waits before the next attempt; throws the error when it is terminal, the caller left or the budget is spent. */
  async failed(error: unknown): Promise<void> {
    this.#signal?.throwIfAborted();
    const reason = fromUnknown(error);
    this.#failures += 1;
    if (!reason.retryable || this.#failures > FAILURES_MAX) throw reason;
    const waitMs = Math.min(BACKOFF_FIRST_MS * 2 ** (this.#failures - 1), BACKOFF_MAX_MS);
    await this.#clock.sleep(waitMs, this.#signal);
  }
}
