import type { Receipt } from "../state/apply.ts";

/**
 * Receipts of recent extrinsics by hash. They are kept as long as an extrinsic can live, so a client
 * that lost an answer can send the same extrinsic again and hear how it ended.
 */
export class ReceiptIndex {
  readonly #keepBlocks: number;
  readonly #byHash = new Map<string, Receipt>();

  constructor(options: { keepBlocks: number; receipts?: readonly Receipt[] }) {
    this.#keepBlocks = options.keepBlocks;
    for (const receipt of options.receipts ?? []) this.#byHash.set(receipt.extrinsicHash, receipt);
  }

  /** Adds a block's receipts and forgets those that are too old to matter. */
  add(block: number, receipts: readonly Receipt[]): void {
    for (const receipt of receipts) this.#byHash.set(receipt.extrinsicHash, receipt);
    // The map keeps the order of insertion, so the oldest come first.
    for (const [hash, receipt] of this.#byHash) {
      if (receipt.block >= block - this.#keepBlocks) break;
      this.#byHash.delete(hash);
    }
  }

  /** The receipt of an extrinsic, if it is in a recent block. */
  get(extrinsicHash: string): Receipt | undefined {
    return this.#byHash.get(extrinsicHash);
  }

  /** All receipts, oldest first. */
  all(): Receipt[] {
    return [...this.#byHash.values()];
  }
}
