/** Bounds on waiting: for an answer, for the next message of a stream. */
import { CovenantError } from "../errors/covenant-error.ts";

/** When a stream is to be ended although neither side failed. */
export interface StreamBounds {
  /** The call's own signal: deadline, client gone, or server stopped. */
  signal: AbortSignal;
  /** Ends the stream when no message moved for this long. */
  idleMs: number;
  /** Aborts when the server begins to drain. */
  draining: AbortSignal;
  /** Idle limit from then on. */
  drainIdleMs: number;
}

/** Remembers when a message last moved and rejects `expired` when that is too long ago. */
export class StreamWatch {
  readonly #bounds: StreamBounds;
  readonly #onDrain = () => this.#arm();
  #timer: NodeJS.Timeout | undefined;
  #touchedAt = performance.now();
  #reject: (error: CovenantError) => void = () => undefined;
  /** Never resolves; rejects with COV_STREAM_IDLE or COV_DRAINING. */
  readonly expired: Promise<never>;

  constructor(bounds: StreamBounds) {
    this.#bounds = bounds;
    this.expired = new Promise<never>((_, reject) => {
      this.#reject = reject;
    });
    // Nobody may be waiting at the moment it rejects.
    this.expired.catch(() => undefined);
    bounds.draining.addEventListener("abort", this.#onDrain, { once: true });
    this.#arm();
  }

  /** A message moved. */
  touch(): void {
    this.#touchedAt = performance.now();
  }

  /** Stops watching. */
  close(): void {
    clearTimeout(this.#timer);
    this.#bounds.draining.removeEventListener("abort", this.#onDrain);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const draining = this.#bounds.draining.aborted;
    const limitMs = draining ? this.#bounds.drainIdleMs : this.#bounds.idleMs;
    const leftMs = this.#touchedAt + limitMs - performance.now();
    if (leftMs <= 0) {
      const code = draining ? "COV_DRAINING" : "COV_STREAM_IDLE";
      const text = draining ? "The server is shutting down" : `No message for ${limitMs} ms`;
      this.#reject(new CovenantError(code, text));
      return;
    }
    this.#timer = setTimeout(() => this.#arm(), leftMs);
    this.#timer.unref();
  }
}

/** The work's result, or the signal's reason if that comes first; the work is then left alone. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    // Whatever loses the race has nobody left to report to.
    work.catch(() => undefined);
    aborted.catch(() => undefined);
  }
}

/** What a guarded stream calls back. */
export interface GuardHooks {
  /** Runs each pull; lets the caller restore its tracing context. */
  run<T>(pull: () => Promise<T>): Promise<T>;
  /** Called once at the end, with the error if there was one. */
  end(error?: unknown): void;
  /** Turns what was caught into what is thrown on. */
  map(error: unknown): unknown;
}

/** Passes messages on within bounds. Ends the inner stream when the reader stops or a bound is hit. */
export async function* guardStream<T>(
  messages: AsyncIterable<T>,
  signal: AbortSignal,
  watch: StreamWatch,
  hooks: GuardHooks,
): AsyncGenerator<T> {
  const iterator = messages[Symbol.asyncIterator]();
  let finished = false;
  let failure: unknown;
  try {
    for (;;) {
      const pulled = hooks.run(() => iterator.next());
      const step = await orAborted(Promise.race([pulled, watch.expired]), signal);
      if (step.done) {
        finished = true;
        return;
      }
      watch.touch();
      yield step.value;
      watch.touch();
    }
  } catch (error) {
    failure = error;
    throw hooks.map(error);
  } finally {
    watch.close();
    hooks.end(failure);
    // Not awaited: a handler that never yields again must not hold the connection.
    if (!finished) iterator.return?.().catch(() => undefined);
  }
}
