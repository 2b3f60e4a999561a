import type { Hotkey } from "@covenant/contracts";
import { sha256 } from "@covenant/contracts";
import { scorecard, WEIGHT_RULES } from "@covenant/gauntlet";
import type { Ledger } from "@covenant/ledger";
import { type Clock, fromUnknown, type Logger } from "@covenant/runtime";
import type { Participants } from "./participants.ts";
import type { RoundBook } from "./round-book.ts";

const U16_MAX = 65_535;
const POLL_MS = 1_000;
const SET_AT_FACT = "weights-set-at-block";
const SET_ROUND_FACT = "weights-set-for-round";
const COMMITTED_FACT = "weights-committed";

/** What is decided by configuration. */
export type WeightSetterOptions = {
  netuid: number;
  hotkey: Hotkey;
  burnShare: number;
  burnUid: number;
};

/** What setting weights works with. */
export type WeightSetterModules = {
  ledger: Ledger;
  participants: Participants;
  book: RoundBook;
  clock: Clock;
  logger: Logger;
};

/** Weights committed to and not yet revealed. */
type Committed = {
  uids: number[];
  weights: number[];
  salt: number[];
  epoch: number;
  round: number;
};

/**
 * Brings the shares onto the ledger: after each round, as often as the subnet's rate limit lets it, in the open or by commit and reveal, as
 * the subnet wants it. What it could not set yet it sets later, with the newest shares.
 */
export class WeightSetter {
  readonly #options: WeightSetterOptions;
  readonly #modules: WeightSetterModules;
  #wanted = true;

  constructor(options: WeightSetterOptions, modules: WeightSetterModules) {
    this.#options = options;
    this.#modules = modules;
  }

  /** Asks for the newest shares to be set soon. */
  request(): void {
    this.#wanted = true;
  }

  /** Shares by hotkey as they are now. */
  async shares(): Promise<Map<string, number>> {
    const state = await this.#modules.book.gauntlet();
    const rules = { ...WEIGHT_RULES, burnShare: this.#options.burnShare };
    return scorecard(state, rules).weights.shares;
  }

  /** Ledger block of the last successful setting; 0 when never. */
  async setAtBlock(): Promise<number> {
    return Number((await this.#modules.book.fact(SET_AT_FACT)) ?? 0);
  }

  /** Sets weights whenever they are wanted and allowed, until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#modules;
    while (!signal.aborted) {
      try {
        await this.#step();
      } catch (caught) {
        if (signal.aborted) return;
        const { code, message, metadata } = fromUnknown(caught);
        logger.warn({ code, ...metadata }, `weights not set yet: ${message}`);
      }
      await clock.sleep(POLL_MS, signal).catch(() => {});
    }
  }

  async #step(): Promise<void> {
    const { ledger, book } = this.#modules;
    const { netuid } = this.#options;
    const committed = await book.fact(COMMITTED_FACT);
    if (committed) await this.#reveal(JSON.parse(committed) as Committed);
    if (!this.#wanted) return;
    const state = await book.gauntlet();
    if (state.lastRound < 0) return;
    if (Number((await book.fact(SET_ROUND_FACT)) ?? -1) >= state.lastRound) {
      this.#wanted = false;
      return;
    }
    const { hyperparameters } = await ledger.subnet(netuid);
    if (!(await this.#isAllowed(hyperparameters.weightsRateLimitBlocks))) return;
    const vector = await this.#vector();
    if (vector.uids.length === 0) return;
    if (hyperparameters.commitRevealEnabled) {
      if (!committed) await this.#commit(vector, state.lastRound);
      return;
    }
    const { hotkey } = this.#options;
    const { block } = await ledger.setWeights({ netuid, hotkey, ...vector, versionKey: 0 });
    await this.#done(block, state.lastRound);
  }

  /** A permit is given by the chain at its epochs; the rate limit counts from the last update. */
  async #isAllowed(rateLimitBlocks: number): Promise<boolean> {
    const { ledger, participants } = this.#modules;
    await participants.refresh();
    const own = participants.neuron(this.#options.hotkey.address);
    if (own === undefined || !own.validatorPermit) return false;
    const head = await ledger.headBlock();
    return head + 1 - own.lastUpdateBlock >= rateLimitBlocks;
  }

  async #vector(): Promise<{ uids: number[]; weights: number[] }> {
    const { participants } = this.#modules;
    const { burnShare, burnUid } = this.#options;
    const byUid = new Map<number, number>();
    for (const [hotkey, share] of await this.shares()) {
      const uid = participants.neuron(hotkey)?.uid;
      if (uid !== undefined) byUid.set(uid, share);
    }
    if (burnShare > 0) byUid.set(burnUid, (byUid.get(burnUid) ?? 0) + burnShare);
    const entries = [...byUid].sort(([a], [b]) => a - b);
    const largest = Math.max(...entries.map(([, share]) => share), 0);
    const uids = entries.map(([uid]) => uid);
    return { uids, weights: entries.map(([, share]) => Math.round((share / largest) * U16_MAX)) };
  }

  async #commit(vector: { uids: number[]; weights: number[] }, round: number): Promise<void> {
    const { ledger, book } = this.#modules;
    const { netuid, hotkey } = this.#options;
    const { epochIndex } = await ledger.subnet(netuid);
    const secret = sha256(hotkey.sign(new TextEncoder().encode(`weights ${netuid} ${round}`)));
    const salt = [...new Uint16Array(secret.slice(0, 16).buffer)];
    const committed: Committed = { ...vector, salt, epoch: epochIndex, round };
    await book.saveFact(COMMITTED_FACT, JSON.stringify(committed));
    await ledger.commitWeights({ netuid, hotkey, ...vector, versionKey: 0, salt });
  }

  async #reveal(committed: Committed): Promise<void> {
    const { ledger, book } = this.#modules;
    const { netuid, hotkey } = this.#options;
    const { epochIndex, hyperparameters } = await ledger.subnet(netuid);
    const due = committed.epoch + hyperparameters.revealPeriodEpochs;
    if (epochIndex < due) return;
    if (epochIndex === due) {
      const { uids, weights, salt, round } = committed;
      const vector = { netuid, hotkey, uids, weights, salt, versionKey: 0 };
      const { block } = await ledger.revealWeights(vector);
      await this.#done(block, round);
    }
    await book.saveFact(COMMITTED_FACT, "");
  }

  async #done(block: number, round: number): Promise<void> {
    const { book, logger } = this.#modules;
    await book.saveFact(SET_AT_FACT, String(block));
    await book.saveFact(SET_ROUND_FACT, String(round));
    logger.info({ block, round }, "weights are on the ledger");
  }
}
