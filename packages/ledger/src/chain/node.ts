import { randomBytes } from "node:crypto";
import { sha256, toHex } from "@covenant/contracts";
import { type Clock, CovenantError, fromUnknown, type Logger } from "@covenant/runtime";
import type { Receipt } from "../state/apply.ts";
import { checkSignature, type Extrinsic, extrinsicHash } from "../state/extrinsic.ts";
import type { ChainEvent, ChainState, Head } from "../state/types.ts";
import { ExtrinsicPool, type PooledExtrinsic } from "./pool.ts";
import type { ChainStore } from "./store.ts";

/** How blocks are made. */
export interface NodeOptions {
  /** Time from block to block; 0 makes blocks only when asked. */
  blockTimeMs: number;
  poolLimit: number;
  blockExtrinsicsMax: number;
  snapshotIntervalBlocks: number;
  /** Makes entropy a function of this text and the block number: for tests that replay. */
  entropySeed?: string | undefined;
}

/** Blocks whose events can still be asked for. */
const EVENT_BLOCKS_KEPT = 512;
/** Pause after a block that could not be made durable. */
const RETRY_PAUSE_MS = 1000;

/**
 * The one producer of blocks. A block is served, and its extrinsics acknowledged, only when it is on
 * the disk; with one producer that also makes it final, so a served block never changes.
 */
export class ChainNode {
  readonly #options: NodeOptions;
  readonly #store: ChainStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #pool: ExtrinsicPool;
  readonly #events = new Map<number, readonly ChainEvent[]>();
  readonly #stopping = new AbortController();
  #headChanged = Promise.withResolvers<void>();
  #producing: Promise<unknown> = Promise.resolve();
  #loop: Promise<void> = Promise.resolve();

  constructor(options: NodeOptions, modules: { store: ChainStore; clock: Clock; logger: Logger }) {
    this.#options = options;
    this.#store = modules.store;
    this.#clock = modules.clock;
    this.#logger = modules.logger;
    this.#pool = new ExtrinsicPool({ limit: options.poolLimit });
  }

  /** The state after the newest durable block. */
  get state(): ChainState {
    return this.#store.state;
  }

  /** The newest durable block. */
  get head(): Head {
    return this.#store.state.head;
  }

  /** Begins timed production. `onFatal` is called once if the log can no longer be written. */
  start(onFatal: (error: CovenantError) => void): void {
    if (this.#options.blockTimeMs > 0) this.#loop = this.#produceTimed(onFatal);
  }

  /** The next nonce of a signer, counting what waits for a block. */
  nextNonce(signer: string): number {
    const used = this.state.accounts.get(signer)?.nonce ?? 0;
    return used + this.#pool.countOf(signer);
  }

  /**
   * Takes an extrinsic and returns its receipt once it is durable in a block. The same extrinsic
   * sent again gets the same receipt.
   * @throws InvalidExtrinsicError, COV_LEDGER_POOL_FULL, COV_DRAINING
   */
  submit(extrinsic: Extrinsic): Promise<Receipt> {
    const known = this.#store.receipts.get(extrinsicHash(extrinsic));
    if (known !== undefined) return Promise.resolve(known);
    if (this.#stopping.signal.aborted) throw stoppingError();
    checkSignature(extrinsic, this.state.genesisHash);
    return this.#pool.add(this.state, extrinsic).settled;
  }

  /** Resolves when the head is at least `block`, or when `signal` aborts. */
  async waitForBlock(block: number, signal: AbortSignal): Promise<Head> {
    const aborted = Promise.withResolvers<void>();
    const onAbort = (): void => aborted.resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (this.head.number < block && !signal.aborted && !this.#stopping.signal.aborted) {
        await Promise.race([this.#headChanged.promise, aborted.promise]);
      }
      return this.head;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Hash of a block; undefined when it has not been made. */
  async blockHash(block: number): Promise<Uint8Array | undefined> {
    return this.#store.hashes.at(block);
  }

  /** Events of a recent block of this process; undefined for others. */
  eventsOf(block: number): readonly ChainEvent[] | undefined {
    return this.#events.get(block);
  }

  /** Makes blocks at once, one after another, and returns the new head. */
  async produce(count: number): Promise<Head> {
    for (let made = 0; made < count; made++) await this.#enqueueBlock();
    return this.head;
  }

  /** Stops making blocks, snapshots, and turns everything that waits away. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#loop;
    await this.#producing;
    this.#pool.clear(stoppingError());
    this.#headChanged.resolve();
    if (this.#store.blocksSinceSnapshot > 0) await this.#store.snapshot();
  }

  async #produceTimed(onFatal: (error: CovenantError) => void): Promise<void> {
    const { signal } = this.#stopping;
    let nextMs = this.#clock.nowMs() + this.#options.blockTimeMs;
    while (!signal.aborted) {
      const waitMs = nextMs - this.#clock.nowMs();
      if (waitMs > 0) await this.#clock.sleep(waitMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      // After a pause (a suspended machine) the beat starts anew instead of catching up in a burst.
      nextMs = Math.max(nextMs, this.#clock.nowMs()) + this.#options.blockTimeMs;
      try {
        await this.#enqueueBlock();
      } catch (error) {
        const failure = fromUnknown(error);
        this.#logger.error({ code: failure.code, remedy: failure.remedy }, failure.message);
        if (!failure.retryable) return onFatal(failure);
        await this.#clock.sleep(RETRY_PAUSE_MS, signal).catch(() => undefined);
      }
    }
  }

  /** Blocks are made strictly one after another, whoever asks for them. */
  #enqueueBlock(): Promise<void> {
    const made = this.#producing.then(() => this.#produceBlock());
    this.#producing = made.catch(() => undefined);
    return made;
  }

  async #produceBlock(): Promise<void> {
    const selected = this.#pool.select(this.state, this.#options.blockExtrinsicsMax);
    const applied = await this.#store.append({
      timeMs: Math.trunc(this.#clock.nowMs()),
      entropy: this.#entropy(this.head.number + 1),
      extrinsics: selected.map(({ extrinsic }) => extrinsic),
    });
    this.#publish(selected, applied);
    if (this.#store.blocksSinceSnapshot >= this.#options.snapshotIntervalBlocks) {
      await this.#store.snapshot();
    }
  }

  #publish(
    selected: readonly PooledExtrinsic[],
    applied: { receipts: Receipt[]; events: ChainEvent[] },
  ): void {
    const { number } = this.head;
    this.#events.set(number, applied.events);
    this.#events.delete(number - EVENT_BLOCKS_KEPT);
    for (const [index, pooled] of selected.entries()) {
      this.#pool.complete(pooled, applied.receipts[index]!);
    }
    this.#headChanged.resolve();
    this.#headChanged = Promise.withResolvers<void>();
  }

  #entropy(block: number): string {
    const seed = this.#options.entropySeed;
    if (seed === undefined) return randomBytes(32).toString("hex");
    return toHex(sha256(new TextEncoder().encode(`${seed}/${block}`)));
  }
}

function stoppingError(): CovenantError {
  return new CovenantError("COV_DRAINING", "the chain is shutting down");
}
