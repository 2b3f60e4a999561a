import { toHex } from "@covenant/contracts";
import {
  type AnnounceUpdateRequest,
  RoundState,
  type SignedManifest,
} from "@covenant/contracts/gauntlet";
import {
  CovenantError,
  currentTraceId,
  fromUnknown,
  withSpan,
  withSpanOf,
} from "@covenant/runtime";
import {
  type Announced,
  expectedPeers,
  isCheckpointRound,
  manifestHash,
  missingPeers,
  openRound,
  type RoundEffect,
  type RoundEvent,
  type RoundRecord,
  stepRound,
  takesAnnouncements,
} from "@covenant/sparseloco";
import type { Judge } from "./judge.ts";
import type { Outcome } from "./outcome.ts";
import { RoundTasks, type Scored } from "./round-tasks.ts";
import { Serial } from "./serial.ts";
import { loadTip, type Tip } from "./tip.ts";

/** A failing task of a round is repeated this often before the process gives up. */
const TASK_ATTEMPTS_MAX = 60;
const TASK_RETRY_MS = 1_000;
/** Rounds that may still have work to do when the newest one is open. */
const LIVE_ROUNDS_MAX = 64;

/**
 * Carries the rounds of a run through their states, on the ledger's time. All transitions happen one after another and are durable before
 * anybody hears of them; long work (scoring, signing, checkpoints) runs beside them and comes back as an event.
 */
export class RoundLoop {
  readonly #judge: Judge;
  readonly #tasks: RoundTasks;
  readonly #serial = new Serial();
  readonly #live = new Map<number, RoundRecord>();
  readonly #failure = Promise.withResolvers<never>();
  readonly #traceIds = new Map<number, string>();
  readonly #running = new Set<string>();
  readonly #scoringAborts = new Map<number, AbortController>();
  #tip!: Tip;
  #block = 0;

  constructor(modules: { judge: Judge }) {
    this.#judge = modules.judge;
    this.#tasks = new RoundTasks(modules.judge);
    this.#failure.promise.catch(() => {});
  }

  /** Block last seen. */
  get block(): number {
    return this.#block;
  }

  /** Number of the newest round. */
  get newestRound(): number {
    return Math.max(-1, ...this.#live.keys(), this.#tip.round);
  }

  /** What the next round starts from. */
  get tip(): Tip {
    return this.#tip;
  }

  /** A round that still has work to do, or undefined. */
  record(round: number): RoundRecord | undefined {
    return this.#live.get(round);
  }

  /** Reads the stored state and takes up what a stop interrupted. */
  async start(): Promise<void> {
    const { book, ledger, logger } = this.#judge;
    this.#tip = await loadTip(this.#judge);
    this.#block = await ledger.headBlock();
    const newest = await book.newestRound();
    for (const stored of await book.rounds(newest - LIVE_ROUNDS_MAX, LIVE_ROUNDS_MAX + 1)) {
      const { record, traceId } = stored;
      if (isSettled(record, this.#makesCheckpoint(record.round))) continue;
      this.#live.set(record.round, record);
      this.#traceIds.set(record.round, traceId);
      if (this.#makesCheckpoint(record.round)) this.#judge.files.pin(record.round);
      logger.info({ round: record.round, state: record.state }, "taking up an unfinished round");
      for (const effect of resumeEffects(record)) this.#begin(record.round, effect);
    }
    if (this.#tip.round === newest) await this.#open(newest + 1, this.#tip.closeBlock);
  }

  /** Follows the ledger until aborted; rejects when a task cannot be completed. */
  async run(): Promise<never> {
    return Promise.race([this.#follow(), this.#failure.promise]);
  }

  /**
   * Takes an announcement that passed the intake's checks. Durable when it returns. Throws COV_UPDATE_LATE when the round has closed;
   * announcing the same again is harmless.
   */
  announce(request: AnnounceUpdateRequest, announced: Announced): Promise<number> {
    return this.#serial.run(async () => {
      const round = request.header!.round;
      const record = this.#live.get(round);
      const known = record?.announced.some(({ hotkey }) => hotkey === announced.hotkey);
      if (known) return this.#block;
      if (record === undefined || !takesAnnouncements(record.state)) {
        throw new CovenantError("COV_UPDATE_LATE", `round ${round} has closed`, {
          metadata: { round },
        });
      }
      const event: RoundEvent = { type: "announced", update: announced, block: this.#block };
      const step = stepRound(this.#judge.rules, record, event);
      const announcement = { announced, request };
      await this.#judge.book.saveAnnouncement(step.record, announcement, this.#block);
      this.#take(step.record, step.effects);
      return this.#block;
    });
  }

  /** Takes over a round that a quorum signed elsewhere; the caller has verified manifest and outcome. */
  async adopt(signed: SignedManifest, outcome: Outcome): Promise<void> {
    const { round, closeBlock, contributors } = signed.manifest!;
    const { logger } = this.#judge;
    await this.#serial.run(async () => {
      if (round !== this.#tip.round + 1) return;
      logger.info({ round }, "round adopted from another validator");
      await this.#settle(signed, outcome, {
        type: "adopted",
        contributors: contributors.length,
        signers: signed.signatures.length,
        closeBlock: Number(closeBlock),
        block: this.#block,
      });
    });
  }

  async #follow(): Promise<never> {
    const { ledger, signal, clock, logger } = this.#judge;
    for (;;) {
      signal.throwIfAborted();
      try {
        this.#block = await ledger.waitForBlock(this.#block + 1, signal);
        await this.#serial.run(() => this.#tick());
      } catch (caught) {
        signal.throwIfAborted();
        const { code, message } = fromUnknown(caught);
        logger.warn({ code }, `waiting for the ledger: ${message}`);
        await clock.sleep(TASK_RETRY_MS, signal);
      }
    }
  }

  /** One block: newcomers of the first round, then deadlines. */
  async #tick(): Promise<void> {
    const first = this.#live.get(0);
    if (first !== undefined && takesAnnouncements(first.state)) {
      await this.#judge.participants.refresh();
      const hotkeys = this.#judge.participants.trainers;
      await this.#apply(0, { type: "expected", hotkeys, block: this.#block });
    }
    for (const round of [...this.#live.keys()]) {
      await this.#apply(round, { type: "block", block: this.#block });
    }
  }

  /** Steps a round and stores it; called inside the serial section only. */
  async #apply(round: number, event: RoundEvent): Promise<void> {
    const record = this.#live.get(round);
    if (record === undefined) return;
    const step = stepRound(this.#judge.rules, record, event);
    if (step.refused !== undefined) {
      this.#judge.logger.debug({ round, event: event.type }, step.refused);
      return;
    }
    if (!sameRecord(step.record, record)) await this.#judge.book.saveRecord(step.record);
    this.#take(step.record, step.effects);
  }

  #take(record: RoundRecord, effects: readonly RoundEffect[]): void {
    const before = this.#live.get(record.round);
    if (isSettled(record, this.#makesCheckpoint(record.round))) {
      this.#live.delete(record.round);
      this.#traceIds.delete(record.round);
    } else {
      this.#live.set(record.round, record);
    }
    if (before === undefined || !sameRecord(before, record)) this.#changed(record.round);
    for (const effect of effects) this.#begin(record.round, effect);
  }

  #changed(round: number): void {
    this.#judge.broadcaster.changed(round);
  }

  async #open(round: number, openBlock: number): Promise<void> {
    const { setup, rules, book, participants, logger } = this.#judge;
    if (round >= setup.run.rounds) {
      logger.info({ rounds: setup.run.rounds }, "the run's last round is signed");
      return;
    }
    await participants.refresh();
    await withSpan("validator.round", { round }, async () => {
      const block = openBlock === 0 ? this.#block : openBlock;
      const opened = openRound(rules, round, block);
      const known = new Set(Object.keys((await book.gauntlet()).peers));
      const recent = await book.announcers(round - 2, round - 1);
      const expected = expectedPeers({ endpoints: participants.trainers, known, recent });
      const record = { ...opened, expected: expected.sort() };
      if (this.#makesCheckpoint(round)) this.#judge.files.pin(round);
      const traceId = currentTraceId() ?? "";
      await book.openRound(record, traceId);
      this.#traceIds.set(round, traceId);
      this.#take(record, []);
      logger.info({ round, openBlock: block, expected: expected.length }, "round opened");
    });
  }

  #begin(round: number, effect: RoundEffect): void {
    switch (effect.type) {
      case "score":
        this.#repeat("score", round, () => this.#score(round));
        break;
      case "abandonScoring":
        this.#scoringAborts.get(round)?.abort(new Error("scoring took too long"));
        break;
      case "collectSignatures":
        this.#repeat("sign", round, () => this.#sign(round));
        break;
      case "apply":
        this.#repeat("apply", round, () => this.#measure(round));
        break;
      case "checkpoint":
        this.#repeat("checkpoint", round, () => this.#checkpoint(round));
        break;
    }
  }

  /** Runs a task until it works; the same task of a round never runs twice at once. */
  #repeat(name: string, round: number, task: () => Promise<void>): void {
    const key = `${name} ${round}`;
    if (this.#running.has(key)) return;
    this.#running.add(key);
    const { logger, clock, signal } = this.#judge;
    const attempt = async () => {
      for (let attempts = 1; !signal.aborted; attempts += 1) {
        try {
          const traceId = this.#traceIds.get(round) ?? "";
          await withSpanOf(traceId, `validator.${name}`, { round }, task);
          return;
        } catch (caught) {
          if (signal.aborted) return;
          const error = fromUnknown(caught);
          logger.error({ err: error, code: error.code, round, attempts }, `${name} failed`);
          if (attempts >= TASK_ATTEMPTS_MAX) this.#failure.reject(error);
          await clock.sleep(TASK_RETRY_MS, signal).catch(() => {});
        }
      }
    };
    void attempt().finally(() => this.#running.delete(key));
  }

  async #score(round: number): Promise<void> {
    const record = this.#live.get(round);
    if (record?.state !== RoundState.SCORING) return;
    const abandoned = new AbortController();
    this.#scoringAborts.set(round, abandoned);
    let scored: Scored;
    try {
      scored = await this.#tasks.score(record, this.#tip, missingPeers(record), abandoned.signal);
    } finally {
      this.#scoringAborts.delete(round);
    }
    await this.#serial.run(async () => {
      const { manifest, merged, parameters } = scored.proposal;
      const current = this.#live.get(round);
      if (current?.state !== RoundState.SCORING) return;
      const { files } = this.#judge;
      if (merged.length > 0) await files.saveMerged(round, merged);
      await files.saveParameters(round, parameters);
      const step = stepRound(this.#judge.rules, current, {
        type: "scored",
        contributors: manifest.contributors.length,
        nullReason: manifest.nullReason,
        block: this.#block,
      });
      const { bundles, gauntlet } = scored;
      await this.#judge.book.propose({ record: step.record, manifest, bundles, gauntlet });
      this.#take(step.record, step.effects);
    });
  }

  async #sign(round: number): Promise<void> {
    const record = this.#live.get(round);
    if (record?.state !== RoundState.PROPOSED) return;
    const { participants, colleagues, signal } = this.#judge;
    await participants.refresh();
    if (!(await colleagues.isOurTurn(round, signal))) return;
    const settled = await this.#tasks.sign(round, this.#tip);
    if (settled === undefined) return;
    const { signed, outcome } = settled;
    const signers = signed.signatures.length;
    await this.#serial.run(() =>
      this.#settle(signed, outcome, { type: "signed", signers, block: this.#block }),
    );
  }

  /** A quorum has signed: the round is history, the next one opens at once. */
  async #settle(signed: SignedManifest, outcome: Outcome, event: RoundEvent): Promise<void> {
    const { rules, book, files, logger } = this.#judge;
    const manifest = signed.manifest!;
    const { round } = manifest;
    const record = this.#live.get(round);
    if (record === undefined) return;
    const step = stepRound(rules, record, event);
    if (step.refused !== undefined) return;
    this.#scoringAborts.get(round)?.abort(new Error("the round is signed"));
    if (outcome.merged.length > 0) await files.saveMerged(round, outcome.merged);
    await files.saveParameters(round, outcome.parameters);
    await book.saveSigned(step.record, signed);
    this.#tip = {
      round,
      root: manifest.postStateRoot,
      parameters: outcome.parameters,
      manifestSha256: manifestHash(manifest),
      closeBlock: Number(manifest.closeBlock),
    };
    const contributors = manifest.contributors.length;
    const stateRoot = toHex(manifest.postStateRoot);
    logger.info({ round, contributors, stateRoot }, "round signed");
    this.#take(step.record, step.effects);
    await this.#open(round + 1, this.#tip.closeBlock);
  }

  async #measure(round: number): Promise<void> {
    const record = this.#live.get(round);
    if (record?.state !== RoundState.SIGNED) return;
    await this.#tasks.measure(round);
    const checkpoint = this.#makesCheckpoint(round);
    await this.#serial.run(() =>
      this.#apply(round, { type: "applied", block: this.#block, checkpoint }),
    );
    this.#changed(round);
    this.#judge.weights.request();
  }

  #makesCheckpoint(round: number): boolean {
    const { uploader, setup } = this.#judge;
    return uploader !== undefined && isCheckpointRound(setup.run, round);
  }

  async #checkpoint(round: number): Promise<void> {
    const record = this.#live.get(round);
    if (record?.state !== RoundState.APPLIED) return;
    const root = await this.#tasks.checkpoint(round);
    this.#judge.files.release(round);
    await this.#serial.run(() => this.#apply(round, { type: "checkpointed", root: toHex(root) }));
  }
}

function sameRecord(a: RoundRecord, b: RoundRecord): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** True when a round has nothing left to do. */
function isSettled(record: RoundRecord, makesCheckpoint: boolean): boolean {
  if (record.state === RoundState.CHECKPOINTED) return true;
  return record.state === RoundState.APPLIED && !makesCheckpoint;
}

/** What has to be begun again for a round that was interrupted in its state. */
function resumeEffects(record: RoundRecord): RoundEffect[] {
  switch (record.state) {
    case RoundState.SCORING:
      return [{ type: "score" }];
    case RoundState.PROPOSED:
      return [{ type: "collectSignatures" }];
    case RoundState.SIGNED:
      return [{ type: "apply" }];
    case RoundState.APPLIED:
      return [{ type: "checkpoint" }];
    default:
      return [];
  }
}
