import { create } from "@bufbuild/protobuf";
import {
  type ExplainScoreResponse,
  ExplainScoreResponseSchema,
  VerdictReason,
  VerdictSchema,
} from "@covenant/contracts/gauntlet";
import {
  type CopyFinding,
  findCopies,
  isUndecided,
  type Judgement,
  judgeUpdate,
  type LossEvidence,
  type RoundResult,
  typicalImprovement,
} from "@covenant/gauntlet";
import { assignedSamples, drawSamples, unassignedSamples } from "@covenant/sparseloco";
import type { Evaluator } from "./evaluator.ts";
import {
  type Announcement,
  type FetchModules,
  fetchUpdate,
  type Refusal,
  type SoundUpdate,
} from "./fetch-updates.ts";

/** What scoring a round needs. Everything in it is durable or on the ledger, so a restart scores alike. */
export type ScoringInput = {
  round: number;
  baseRoot: Uint8Array;
  parameters: Float32Array;
  announcements: readonly Announcement[];
  /** Expected peers that announced nothing. */
  missing: readonly string[];
  /** 32 bytes of the ledger from after the round closed: nobody could train for the samples drawn with them. */
  randomness: Uint8Array;
  signal: AbortSignal;
};

/** How many samples are measured. */
export type ScoringOptions = {
  samplesPerSet: number;
  /** Undecided updates are measured on twice as many until this is reached. */
  samplesPerSetMax: number;
  evaluationScale: number;
};

/** What scoring a round works with. */
export type ScoringModules = FetchModules & { evaluator: Evaluator };

/** The outcome of scoring: a bundle per judged peer, and the updates that contribute, in order of commitment. */
export type RoundScores = {
  bundles: ExplainScoreResponse[];
  results: RoundResult[];
  accepted: SoundUpdate[];
};

const NOT_COPIED: CopyFinding = { overlap: 0, overlapWith: "", similarity: 0, copy: false };

/** Judges every update of a closed round. */
export async function scoreRound(
  input: ScoringInput,
  options: ScoringOptions,
  modules: ScoringModules,
): Promise<RoundScores> {
  const { round, baseRoot, announcements, signal } = input;
  const sound: SoundUpdate[] = [];
  const refusals: Refusal[] = [];
  for (const announcement of announcements) {
    signal.throwIfAborted();
    const fetched = await fetchUpdate(modules, round, baseRoot, announcement, signal);
    if ("reason" in fetched) refusals.push(fetched);
    else sound.push(fetched);
  }
  const seed = new DataView(input.randomness.slice(0, 4).buffer).getUint32(0, true);
  const copies = findCopies(
    sound.map(({ fingerprint }) => fingerprint),
    seed,
  );
  const losses = new LossLedger(input, options, modules);
  const scores: RoundScores = { bundles: [], results: [], accepted: [] };
  const measured = new Map<SoundUpdate, Measured>();
  for (const update of sound) {
    const copy = copies.get(update.announcement.announced.hotkey);
    if (copy?.copy !== true) measured.set(update, await losses.measure(update, sound));
  }
  const typicalNow = () => typicalImprovement([...measured.values()].map((m) => m.evidence));
  const first = typicalNow();
  for (const each of measured.values()) await losses.extendWhileUndecided(each, first);
  const typical = typicalNow();
  for (const update of sound) {
    const { announcement } = update;
    const copy = copies.get(announcement.announced.hotkey) ?? NOT_COPIED;
    const losses = measured.get(update);
    const judgement = judgeUpdate(copy, losses?.evidence, typical);
    record(scores, input, { announcement, judgement, copy, losses, typical, options });
    if (judgement.reason === VerdictReason.ACCEPTED) scores.accepted.push(update);
  }
  for (const { announcement, reason, explanation } of refusals) {
    const judgement = unmeasured(reason, explanation);
    const nothing = { copy: NOT_COPIED, losses: undefined, typical: 0, options };
    record(scores, input, { announcement, judgement, ...nothing });
  }
  for (const hotkey of input.missing) {
    const explanation = "expected, but no update was announced in time";
    const verdict = create(VerdictSchema, { hotkey, reason: VerdictReason.MISSING, explanation });
    scores.bundles.push(create(ExplainScoreResponseSchema, { verdict, baseRoot }));
    scores.results.push({ hotkey, reason: verdict.reason, explanation, comparableImprovement: 0 });
  }
  return scores;
}

function unmeasured(reason: VerdictReason, explanation: string): Judgement {
  return { reason, explanation, assignedImprovement: 0, unassignedImprovement: 0, confidence: 0 };
}

type Finding = {
  announcement: Announcement;
  judgement: Judgement;
  copy: CopyFinding;
  losses: Measured | undefined;
  typical: number;
  options: ScoringOptions;
};

function record(scores: RoundScores, input: ScoringInput, finding: Finding): void {
  const { announcement, judgement, copy, losses, typical, options } = finding;
  const { hotkey } = announcement.announced;
  const { payloadBytes, payloadSha256 } = announcement.request;
  const { overlap, overlapWith } = copy;
  const verdict = create(VerdictSchema, {
    hotkey,
    ...judgement,
    overlap,
    overlapWith,
    payloadBytes,
  });
  const { baseRoot } = input;
  const bundle = create(ExplainScoreResponseSchema, { verdict, baseRoot, payloadSha256 });
  if (losses !== undefined) {
    const { evidence } = losses;
    bundle.assignedSamples = losses.assigned;
    bundle.unassignedSamples = losses.unassigned;
    bundle.assignedBefore = [...evidence.assignedBefore];
    bundle.assignedAfter = [...evidence.assignedAfter];
    bundle.unassignedBefore = [...evidence.unassignedBefore];
    bundle.unassignedAfter = [...evidence.unassignedAfter];
    bundle.evaluationScale = options.evaluationScale;
    bundle.typicalImprovement = typical;
  }
  scores.bundles.push(bundle);
  scores.results.push({
    hotkey,
    reason: judgement.reason,
    explanation: judgement.explanation,
    comparableImprovement: judgement.unassignedImprovement,
  });
}

type Measured = {
  update: SoundUpdate;
  /** All samples that may be used, in order. */
  own: number[];
  others: number[];
  /** Those that were. */
  assigned: number[];
  unassigned: number[];
  evidence: LossEvidence;
};

/** Loss evidence of a round's updates; base losses are measured once per sample. */
class LossLedger {
  readonly #input: ScoringInput;
  readonly #options: ScoringOptions;
  readonly #modules: ScoringModules;
  readonly #base = new Map<number, number>();
  #unassigned: number[] | undefined;

  constructor(input: ScoringInput, options: ScoringOptions, modules: ScoringModules) {
    this.#input = input;
    this.#options = options;
    this.#modules = modules;
  }

  /** Measures an update on its own and on common other samples. */
  async measure(update: SoundUpdate, all: readonly SoundUpdate[]): Promise<Measured> {
    const measured: Measured = {
      update,
      own: this.#drawOwn(update),
      others: this.#drawOthers(update, all),
      assigned: [],
      unassigned: [],
      evidence: {
        assignedBefore: [],
        assignedAfter: [],
        unassignedBefore: [],
        unassignedAfter: [],
      },
    };
    await this.#extendTo(measured, this.#options.samplesPerSet);
    return measured;
  }

  /** Doubles the samples while the verdict is open and the limit is not reached. */
  async extendWhileUndecided(measured: Measured, typical: number): Promise<void> {
    const { samplesPerSet, samplesPerSetMax } = this.#options;
    let count = samplesPerSet;
    while (count < samplesPerSetMax && isUndecided(measured.evidence, typical)) {
      count = Math.min(count * 2, samplesPerSetMax);
      await this.#extendTo(measured, count);
    }
  }

  #drawOwn(update: SoundUpdate): number[] {
    const { randomness } = this.#input;
    return [...drawSamples(update.samples, this.#options.samplesPerSetMax, randomness)];
  }

  /** Samples nobody was given in this round; where all are given out, samples this peer was not given. */
  #drawOthers(update: SoundUpdate, all: readonly SoundUpdate[]): number[] {
    const { samplesPerSet, samplesPerSetMax } = this.#options;
    const { sampleCount } = this.#modules.setup.assignment;
    const { randomness } = this.#input;
    const draw = (taken: readonly Uint32Array[]) => [
      ...unassignedSamples(sampleCount, taken, samplesPerSetMax, randomness),
    ];
    this.#unassigned ??= draw([...all.map(({ samples }) => samples), ...this.#missingSamples()]);
    return this.#unassigned.length >= samplesPerSet ? this.#unassigned : draw([update.samples]);
  }

  #missingSamples(): Uint32Array[] {
    const { participants, setup } = this.#modules;
    return this.#input.missing.flatMap((hotkey) => {
      const uid = participants.neuron(hotkey)?.uid;
      if (uid === undefined) return [];
      return [assignedSamples(setup.assignment, this.#input.round, { uid, hotkey })];
    });
  }

  async #extendTo(measured: Measured, count: number): Promise<void> {
    this.#input.signal.throwIfAborted();
    const assigned = measured.own.slice(measured.assigned.length, count);
    const unassigned = measured.others.slice(measured.unassigned.length, count);
    const samples = [...assigned, ...unassigned];
    if (samples.length === 0) return;
    const before = await this.#baseLosses(samples);
    const { parameters } = this.#input;
    const { body } = measured.update;
    const after = await this.#modules.evaluator.lossesAfter(parameters, body, samples);
    const split = assigned.length;
    const { evidence } = measured;
    measured.evidence = {
      assignedBefore: [...evidence.assignedBefore, ...before.slice(0, split)],
      assignedAfter: [...evidence.assignedAfter, ...after.slice(0, split)],
      unassignedBefore: [...evidence.unassignedBefore, ...before.slice(split)],
      unassignedAfter: [...evidence.unassignedAfter, ...after.slice(split)],
    };
    measured.assigned.push(...assigned);
    measured.unassigned.push(...unassigned);
  }

  async #baseLosses(samples: readonly number[]): Promise<number[]> {
    const unknown = samples.filter((sample) => !this.#base.has(sample));
    if (unknown.length > 0) {
      const losses = await this.#modules.evaluator.losses(this.#input.parameters, unknown);
      for (const [index, sample] of unknown.entries()) this.#base.set(sample, losses[index]!);
    }
    return samples.map((sample) => this.#base.get(sample)!);
  }
}
