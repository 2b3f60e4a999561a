import { randomBytes } from "node:crypto";
import { sha256, toHex } from "@covenant/contracts";
import type { Ledger } from "@covenant/ledger";
import type { Clock } from "@covenant/runtime";

/** What keys the draws of a completion. */
export interface Beacon {
  /** Ledger block that the randomness is of; 0 when it is not of the ledger. */
  readonly block: number;
  /** 32 bytes. */
  readonly randomness: Uint8Array;
}

/** Prompts whose count in the present block is remembered. */
const promptsMax = 10_000;
const freshMs = 1_000;

/**
 * Where draws come from. With a seed: from the seed alone, so that the same request gives the same
 * answer. Without: from the newest block of the ledger, and, since many may ask the same within one
 * block, from a count of those who did.
 */
export class BeaconSource {
  readonly #ledger: Pick<Ledger, "headBlock" | "randomness"> | undefined;
  readonly #clock: Clock;
  #present: Beacon | undefined;
  #readAtMs = Number.NEGATIVE_INFINITY;
  readonly #counts = new Map<string, number>();

  constructor(modules: {
    ledger?: Pick<Ledger, "headBlock" | "randomness"> | undefined;
    clock: Clock;
  }) {
    this.#ledger = modules.ledger;
    this.#clock = modules.clock;
  }

  /** Beacon of a request and the first of its `count` rollout indices. */
  async draw(
    seed: bigint | undefined,
    promptHash: Uint8Array,
    count: number,
  ): Promise<{ beacon: Beacon; firstIndex: number }> {
    if (seed !== undefined) return { beacon: seededBeacon(seed), firstIndex: 0 };
    const beacon = await this.#newest();
    const key = toHex(promptHash);
    const firstIndex = this.#counts.get(key) ?? 0;
    this.#counts.set(key, firstIndex + count);
    if (this.#counts.size > promptsMax) this.#counts.delete(this.#counts.keys().next().value ?? "");
    return { beacon, firstIndex };
  }

  /** Randomness of a block, for checking a receipt; undefined when there is nothing to compare. */
  async randomnessOf(block: number): Promise<Uint8Array | undefined> {
    return block > 0 ? this.#ledger?.randomness(block) : undefined;
  }

  async #newest(): Promise<Beacon> {
    const nowMs = this.#clock.nowMs();
    if (this.#present !== undefined && nowMs - this.#readAtMs < freshMs) return this.#present;
    const next = await this.#read();
    this.#readAtMs = nowMs;
    if (next.block !== this.#present?.block || next.block === 0) {
      this.#present = next;
      this.#counts.clear();
    }
    return this.#present!;
  }

  async #read(): Promise<Beacon> {
    if (this.#ledger === undefined) return { block: 0, randomness: randomBytes(32) };
    const block = await this.#ledger.headBlock();
    return { block, randomness: await this.#ledger.randomness(block) };
  }
}

function seededBeacon(seed: bigint): Beacon {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, seed, true);
  return { block: 0, randomness: sha256(new TextEncoder().encode("covenant.seed.v1"), bytes) };
}
