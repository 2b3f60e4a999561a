import { CovenantError } from "@covenant/runtime";
import type { Receipt } from "../state/apply.ts";
import { InvalidExtrinsicError } from "../state/errors.ts";
import { checkPlace, type Extrinsic, extrinsicHash } from "../state/extrinsic.ts";
import type { ChainState } from "../state/types.ts";
import { RECORD_BYTES_MAX } from "./record.ts";

/** Most extrinsics of one signer that wait for a block. */
const PER_SIGNER_MAX = 64;
/** Most bytes of extrinsics in one block: half of what a log record may hold. */
const BLOCK_BYTES_MAX = RECORD_BYTES_MAX / 2;

/** An extrinsic that waits for its block, and whoever waits with it. */
export interface PooledExtrinsic {
  readonly hash: string;
  readonly extrinsic: Extrinsic;
  /** Size in the block log. */
  readonly sizeBytes: number;
  /** Settles when the extrinsic is durable in a block, or can never be in one. */
  readonly settled: Promise<Receipt>;
  resolve(receipt: Receipt): void;
  reject(error: Error): void;
}

/** Extrinsics between arrival and block, in order of arrival. */
export class ExtrinsicPool {
  readonly #limit: number;
  readonly #waiting = new Map<string, PooledExtrinsic>();

  constructor(options: { limit: number }) {
    this.#limit = options.limit;
  }

  /** Number of waiting extrinsics. */
  get size(): number {
    return this.#waiting.size;
  }

  /** How many extrinsics of a signer wait. */
  countOf(signer: string): number {
    let count = 0;
    for (const { extrinsic } of this.#waiting.values()) if (extrinsic.signer === signer) count++;
    return count;
  }

  /**
   * Adds an extrinsic whose signature has been checked; the same one again joins the first.
   * @throws InvalidExtrinsicError, COV_LEDGER_POOL_FULL
   */
  add(state: ChainState, extrinsic: Extrinsic): PooledExtrinsic {
    const hash = extrinsicHash(extrinsic);
    const known = this.#waiting.get(hash);
    if (known !== undefined) return known;
    const ahead = this.countOf(extrinsic.signer);
    checkPlace(state, extrinsic, ahead);
    if (this.#waiting.size >= this.#limit || ahead >= PER_SIGNER_MAX) {
      throw new CovenantError("COV_LEDGER_POOL_FULL", "too many extrinsics wait for a block", {
        metadata: { waiting: String(this.#waiting.size), ofSigner: String(ahead) },
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<Receipt>();
    // Nobody may be waiting any more when it settles; that is no error of the process.
    promise.catch(() => undefined);
    const sizeBytes = JSON.stringify(extrinsic).length;
    const pooled = { hash, extrinsic, sizeBytes, settled: promise, resolve, reject };
    this.#waiting.set(hash, pooled);
    return pooled;
  }

  /** Up to `limit` extrinsics that fit the next block; those that never can are rejected. */
  select(state: ChainState, limit: number): PooledExtrinsic[] {
    const selected: PooledExtrinsic[] = [];
    const ahead = new Map<string, number>();
    let bytes = 0;
    for (const pooled of this.#waiting.values()) {
      bytes += pooled.sizeBytes;
      if (selected.length >= limit || bytes > BLOCK_BYTES_MAX) break;
      const { signer } = pooled.extrinsic;
      const before = ahead.get(signer) ?? 0;
      try {
        checkPlace(state, pooled.extrinsic, before);
        ahead.set(signer, before + 1);
        selected.push(pooled);
      } catch (error) {
        if (!(error instanceof InvalidExtrinsicError)) throw error;
        this.#waiting.delete(pooled.hash);
        pooled.reject(error);
      }
    }
    return selected;
  }

  /** Takes an extrinsic out after its block became durable. */
  complete(pooled: PooledExtrinsic, receipt: Receipt): void {
    this.#waiting.delete(pooled.hash);
    pooled.resolve(receipt);
  }

  /** Rejects everything that waits. */
  clear(error: Error): void {
    for (const pooled of this.#waiting.values()) pooled.reject(error);
    this.#waiting.clear();
  }
}
