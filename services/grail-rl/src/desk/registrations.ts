// Whether a hotkey is registered in the subnet, asked of the ledger no more often than needed.
import type { Ledger } from "@covenant/ledger";
import { CovenantError } from "@covenant/runtime";

/** Known hotkeys are looked up again after so many blocks, unknown ones at every new block. */
const refreshBlocks = 50;

/** Registered hotkeys as of the last look. */
export class Registrations {
  readonly #netuid: number;
  readonly #ledger: Pick<Ledger, "headBlock" | "metagraph">;
  #hotkeys = new Set<string>();
  #readAtBlock = -1;

  constructor(
    options: { netuid: number },
    modules: { ledger: Pick<Ledger, "headBlock" | "metagraph"> },
  ) {
    this.#netuid = options.netuid;
    this.#ledger = modules.ledger;
  }

  /** Throws COV_WORKER_NOT_REGISTERED unless the hotkey is registered. */
  async require(hotkey: string): Promise<void> {
    const head = await this.#ledger.headBlock();
    const age = head - this.#readAtBlock;
    const isStale = this.#readAtBlock < 0 || age >= refreshBlocks;
    if (isStale || (!this.#hotkeys.has(hotkey) && age > 0)) {
      const neurons = await this.#ledger.metagraph(this.#netuid);
      this.#hotkeys = new Set(neurons.map((neuron) => neuron.hotkey));
      this.#readAtBlock = head;
    }
    if (!this.#hotkeys.has(hotkey)) {
      throw new CovenantError(
        "COV_WORKER_NOT_REGISTERED",
        `Hotkey ${hotkey} is not registered in subnet ${this.#netuid}.`,
        { metadata: { hotkey, netuid: this.#netuid } },
      );
    }
  }
}
