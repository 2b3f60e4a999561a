import { create } from "@bufbuild/protobuf";
import { bytesEqual } from "@covenant/contracts";
import {
  type ExplainScoreResponse,
  ExplainScoreResponseSchema,
  type RoundManifest,
  type SignedManifest,
  VerdictReason,
  VerdictSchema,
} from "@covenant/contracts/gauntlet";
import { applyRound, type GauntletState, isAmnesty, reasonName } from "@covenant/gauntlet";
import { manifestHash, type RoundRecord } from "@covenant/sparseloco";
import type { Announcement } from "./fetch-updates.ts";
import type { Judge } from "./judge.ts";
import type { Outcome } from "./outcome.ts";
import { type Proposal, proposeRound } from "./propose-round.ts";
import { collectSignatures } from "./quorum.ts";
import { type RoundScores, scoreRound } from "./score-round.ts";
import type { Tip } from "./tip.ts";
import { verifiedOutcome } from "./verify-manifest.ts";

/** A scored round, ready to be made final. */
export type Scored = {
  proposal: Proposal;
  bundles: ExplainScoreResponse[];
  gauntlet: GauntletState;
};

/** The long work of a round; none of it changes the round's state by itself. */
export class RoundTasks {
  readonly #judge: Judge;

  constructor(judge: Judge) {
    this.#judge = judge;
  }

  /** Scores a closed round and works out what it leads to; nothing is stored yet. */
  async score(
    record: RoundRecord,
    tip: Tip,
    missing: readonly string[],
    abandoned: AbortSignal,
  ): Promise<Scored> {
    const { book, setup, logger } = this.#judge;
    const announcements = await book.announcements(record.round);
    const scores = await this.#scores(record, tip, missing, announcements, abandoned);
    const proposal = await proposeRound(setup, {
      record,
      baseRoot: tip.root,
      parameters: tip.parameters,
      accepted: scores.accepted,
      nullReason: nullReason(scores),
      previousManifestSha256: tip.manifestSha256,
    });
    const gauntlet = applyRound(await book.gauntlet(), record.round, scores.results);
    for (const { hotkey, reason, explanation } of scores.results) {
      const verdict = { round: record.round, hotkey, reason: reasonName(reason) };
      logger.info(verdict, explanation);
    }
    return { proposal, bundles: scores.bundles, gauntlet };
  }

  async #scores(
    record: RoundRecord,
    tip: Tip,
    missing: readonly string[],
    announcements: readonly Announcement[],
    abandoned: AbortSignal,
  ): Promise<RoundScores> {
    const { participants, ledger, config, signal, clock, objects, setup, evaluator } = this.#judge;
    try {
      await participants.refresh();
      const randomness = await ledger.randomness(record.closeBlock);
      return await scoreRound(
        {
          round: record.round,
          baseRoot: tip.root,
          parameters: tip.parameters,
          announcements,
          missing,
          randomness,
          signal: AbortSignal.any([signal, abandoned]),
        },
        config.scoring,
        {
          setup,
          objects,
          participants,
          clock,
          evaluator,
          fetchBudgetMs: config.fetchBudgetMs,
        },
      );
    } catch (error) {
      if (!abandoned.aborted || signal.aborted) throw error;
      return faultScores(tip.root, announcements, "the validator could not score in time");
    }
  }

  /**
   * A quorum's signatures for a round, with what its manifest leads to; undefined while there is no quorum. Proposes the manifest that this
   * validator has signed already, be it another's, before its own.
   */
  async sign(
    round: number,
    tip: Tip,
  ): Promise<{ signed: SignedManifest; outcome: Outcome } | undefined> {
    const { book, files, hotkey, participants, colleagues, logger, signal } = this.#judge;
    const own = (await book.round(round))?.manifest;
    const claimed = await book.claimed(round);
    const manifest = claimed?.manifest ?? own;
    if (manifest === undefined) throw new Error(`round ${round} has no manifest`);
    const modules = { hotkey, participants, colleagues, book, logger };
    const signed = await collectSignatures(manifest, claimed?.signatures ?? [], modules, signal);
    if (signed === undefined) return undefined;
    const isOwn = own !== undefined && bytesEqual(manifestHash(own), manifestHash(manifest));
    if (!isOwn) return { signed, outcome: await verifiedOutcome(this.#judge, tip, manifest) };
    const isNull = manifest.mergedBytes === 0n;
    const merged = isNull ? new Uint8Array() : await files.loadMerged(round);
    return { signed, outcome: { merged, parameters: await this.parametersAfter(manifest) } };
  }

  /** The parameters a manifest leads to, from the file that was written before it was proposed. */
  parametersAfter(manifest: RoundManifest): Promise<Float32Array> {
    return this.#judge.files.loadParameters(manifest.round, manifest.postStateRoot);
  }

  /** Measures the held-out loss after a round, once. */
  async measure(round: number): Promise<void> {
    const { book, evaluator, heldOut, config } = this.#judge;
    const stored = await book.round(round);
    if (stored?.signed?.manifest === undefined || stored.heldOutLoss !== undefined) return;
    const parameters = await this.parametersAfter(stored.signed.manifest);
    const { heldOutSamples } = config.scoring;
    const loss = await evaluator.meanLoss(parameters, heldOut, heldOutSamples);
    await book.saveHeldOutLoss(round, loss);
  }

  /** Uploads the checkpoint of a round; resolves with its root when the registry shows it. */
  async checkpoint(round: number): Promise<Uint8Array> {
    const { book, uploader } = this.#judge;
    const stored = await book.round(round);
    const manifest = stored?.signed?.manifest;
    if (manifest === undefined || uploader === undefined) throw new Error("nothing to upload");
    return uploader.upload(manifest, stored?.heldOutLoss);
  }
}

function nullReason(scores: RoundScores): string {
  if (scores.results.length === 0) return "nobody took part";
  const count = scores.results.length;
  const amnesty = isAmnesty(scores.results) ? " and is held against nobody" : "";
  return `none of ${count} updates was accepted${amnesty}`;
}

function faultScores(
  baseRoot: Uint8Array,
  announcements: readonly Announcement[],
  explanation: string,
): RoundScores {
  const reason = VerdictReason.VALIDATOR_FAULT;
  const hotkeys = announcements.map(({ announced }) => announced.hotkey);
  return {
    accepted: [],
    bundles: hotkeys.map((hotkey) => {
      const verdict = create(VerdictSchema, { hotkey, reason, explanation });
      return create(ExplainScoreResponseSchema, { verdict, baseRoot });
    }),
    results: hotkeys.map((hotkey) => {
      return { hotkey, reason, explanation, comparableImprovement: 0 };
    }),
  };
}
