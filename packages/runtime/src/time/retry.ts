import { fromUnknown } from "../errors/convert.ts";
import type { Clock } from "./clock.ts";

/** How a failing call is repeated. */
export type RetryOptions = {
  /** What is waited for, for the log: "validator at https://…". */
  what: string;
  signal: AbortSignal;
  clock: Clock;
  /** Total time after which the last error is thrown; the caller then decides what is lost. */
  budgetMs: number;
  /** Errors for which repeating is useless. Default: those that say they are not retryable. */
  isFinal?: (code: string) => boolean;
  onWait?: (what: string, error: string, delayMs: number) => void;
};

const FIRST_DELAY_MS = 200;
const DELAY_MAX_MS = 5_000;

/** Repeats a call with exponential backoff until it works, is aborted, fails for good, or the budget is spent. */
export async function retry<T>(call: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { signal, clock, budgetMs } = options;
  const start = clock.nowMs();
  for (let delayMs = FIRST_DELAY_MS; ; delayMs = Math.min(delayMs * 2, DELAY_MAX_MS)) {
    signal.throwIfAborted();
    try {
      return await call();
    } catch (caught) {
      signal.throwIfAborted();
      const error = fromUnknown(caught);
      const final = options.isFinal?.(error.code) ?? !error.retryable;
      if (final || clock.nowMs() - start + delayMs > budgetMs) throw error;
      options.onWait?.(options.what, error.message, delayMs);
      await clock.sleep(delayMs, signal);
    }
  }
}
