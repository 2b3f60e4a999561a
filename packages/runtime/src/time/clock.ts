/** Time as an argument: production passes the system's, simulation its own. */
import { setTimeout as delay } from "node:timers/promises";

/** What code that waits or stamps needs of time. */
export interface Clock {
  /** Unix milliseconds. */
  nowMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason when that aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

// A timer takes at most 2^31 - 1 milliseconds; longer ones would fire at once.
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The machine's clock. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  async sleep(ms, signal) {
    signal?.throwIfAborted();
    try {
      await delay(Math.min(Math.max(ms, 0), TIMER_MS_MAX), undefined, { signal });
    } catch (error) {
      throw signal?.reason ?? error;
    }
  },
};
