import type { Round } from "@covenant/contracts/gauntlet";
import { type Clock, fromUnknown, type Logger } from "@covenant/runtime";
import type { Validators } from "./validators.ts";

const RECONNECT_FIRST_MS = 200;
const RECONNECT_MAX_MS = 5_000;
/** Rounds kept behind the newest one; older ones are dropped from memory. */
const ROUNDS_KEPT = 256;

/** Modules a feed needs. */
export type RoundFeedModules = { validators: Validators; clock: Clock; logger: Logger };

/**
 * The leader's rounds as they change. Survives restarts of the validator: it reconnects with backoff, says what it waits for, and
 * goes on from the oldest round that somebody still needs.
 */
export class RoundFeed {
  readonly #modules: RoundFeedModules;
  readonly #rounds = new Map<number, Round>();
  readonly #wakers = new Set<() => void>();
  #fromRound: number;
  #newest = -1;

  constructor(fromRound: number, modules: RoundFeedModules) {
    this.#fromRound = fromRound;
    this.#modules = modules;
  }

  /** The newest round heard of; -1 before the first. */
  get newest(): number {
    return this.#newest;
  }

  /** A round as last heard, or undefined. */
  round(number: number): Round | undefined {
    return this.#rounds.get(number);
  }

  /** Forgets rounds before this one; a reconnected stream begins here. */
  advance(toRound: number): void {
    this.#fromRound = toRound;
    for (const known of this.#rounds.keys()) {
      if (known < toRound - ROUNDS_KEPT) this.#rounds.delete(known);
    }
  }

  /** Waits until a round is known and satisfies the predicate. */
  async waitFor(
    number: number,
    predicate: (round: Round) => boolean,
    signal: AbortSignal,
  ): Promise<Round> {
    for (;;) {
      signal.throwIfAborted();
      const round = this.#rounds.get(number);
      if (round !== undefined && predicate(round)) return round;
      await this.#change(signal);
    }
  }

  /** Listens until aborted. */
  async listen(signal: AbortSignal): Promise<void> {
    const { clock, logger, validators } = this.#modules;
    let delayMs = RECONNECT_FIRST_MS;
    while (!signal.aborted) {
      try {
        await validators.refresh();
        const request = { fromRound: this.#fromRound };
        for await (const { round } of validators.leader.watchRounds(request, { signal })) {
          if (round !== undefined) this.#take(round);
          delayMs = RECONNECT_FIRST_MS;
        }
      } catch (caught) {
        if (signal.aborted) return;
        const { code, message } = fromUnknown(caught);
        const waitsFor = validators.leaderUrl ?? "a validator on the ledger";
        validators.rotate();
        logger.warn({ code, waitsFor, delayMs }, `waiting for the validator: ${message}`);
      }
      await clock.sleep(delayMs, signal).catch(() => {});
      delayMs = Math.min(delayMs * 2, RECONNECT_MAX_MS);
    }
  }

  #take(round: Round): void {
    this.#rounds.set(round.round, round);
    this.#newest = Math.max(this.#newest, round.round);
    for (const wake of this.#wakers) wake();
  }

  async #change(signal: AbortSignal): Promise<void> {
    const changed = Promise.withResolvers<void>();
    this.#wakers.add(changed.resolve);
    signal.addEventListener("abort", changed.resolve as () => void);
    await changed.promise;
    this.#wakers.delete(changed.resolve);
    signal.removeEventListener("abort", changed.resolve as () => void);
  }
}
