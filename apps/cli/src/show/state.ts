// What the show knows: plain data, changed only by the reducers below, drawn by the renderers.
import type { Round, Score, VerdictReason } from "@covenant/contracts/gauntlet";
import type { PostTrainingStatus } from "@covenant/contracts/grail";

/** How a participant of the show was started; the mesh itself does not know. */
export type PeerRole = "honest" | "late" | "copier" | "noise";

/** One training peer as people see it. */
export interface PeerView {
  name: string;
  hotkey: string;
  role: PeerRole;
  /** Verdict on its latest update, in words. */
  verdict: string;
  accepted: number;
  rejected: number;
  weightShare: number;
  reasons: string[];
}

/** Parts of the pipeline, in order. */
export const stages = [
  "set-up",
  "pre-training",
  "hand-off",
  "post-training",
  "serving",
  "done",
] as const;
export type Stage = (typeof stages)[number];

/** Everything the renderers draw and the report is made from. */
export interface ShowState {
  stage: Stage;
  /** What happens right now, one sentence. */
  activity: string;
  startedAtMs: number;
  parameterCount: number;
  roundsPlanned: number;
  rounds: Map<number, Round>;
  peers: PeerView[];
  postTraining: PostTrainingStatus | undefined;
  peakRssBytes: number;
  /** Things worth a line of their own, oldest first: restarts, joins, verdicts that changed. */
  events: string[];
}

const eventsMax = 500;

export function initialShowState(options: {
  startedAtMs: number;
  peers: { name: string; hotkey: string; role: PeerRole }[];
  roundsPlanned: number;
}): ShowState {
  return {
    stage: "set-up",
    activity: "Starting.",
    startedAtMs: options.startedAtMs,
    parameterCount: 0,
    roundsPlanned: options.roundsPlanned,
    rounds: new Map(),
    peers: options.peers.map((peer) => ({
      ...peer,
      verdict: peer.role === "late" ? "joins later" : "starting",
      accepted: 0,
      rejected: 0,
      weightShare: 0,
      reasons: [],
    })),
    postTraining: undefined,
    peakRssBytes: 0,
    events: [],
  };
}

export function addEvent(state: ShowState, line: string): void {
  state.events.push(line);
  if (state.events.length > eventsMax) state.events.shift();
}

/** Words for a verdict's reason code. */
export function verdictWords(reason: VerdictReason): string {
  return verdictTexts[reason] ?? "unknown verdict";
}

const verdictTexts: Record<number, string> = {
  1: "accepted",
  2: "missing",
  3: "late",
  4: "bad signature",
  5: "not registered",
  6: "malformed",
  7: "hash mismatch",
  8: "wrong base",
  9: "copy",
  10: "no improvement",
  11: "not trained on its samples",
  12: "not committed",
  13: "validator's fault",
};

/** A round changed. */
export function onRound(state: ShowState, round: Round): void {
  state.rounds.set(round.round, round);
  for (const verdict of round.verdicts) {
    const peer = state.peers.find((candidate) => candidate.hotkey === verdict.hotkey);
    if (peer) peer.verdict = verdictWords(verdict.reason);
  }
}

/** New scores. */
export function onScores(state: ShowState, scores: readonly Score[]): void {
  for (const score of scores) {
    const peer = state.peers.find((candidate) => candidate.hotkey === score.hotkey);
    if (!peer) continue;
    peer.weightShare = score.weightShare;
    peer.reasons = score.reasons;
    peer.accepted = score.roundsAccepted;
    peer.rejected = score.roundsRejected;
  }
}

/** Rounds whose outcome is signed, in order. */
export function closedRounds(state: ShowState): Round[] {
  return [...state.rounds.values()]
    .filter((round) => round.signedManifest !== undefined)
    .sort((a, b) => a.round - b.round);
}

/** Held-out bits per byte before the first round and after the latest closed one; undefined before they are measured. */
export function heldOut(state: ShowState): { first?: number; last?: number } {
  const first = state.rounds.get(0)?.initialBitsPerByte;
  const last = closedRounds(state)
    .filter((round) => round.heldOutBitsPerByte > 0)
    .at(-1)?.heldOutBitsPerByte;
  return { ...(first ? { first } : {}), ...(last ? { last } : {}) };
}

/** Mean stored bytes of accepted updates, header and hashes included; 0 before the first. */
export function bytesPerUpdate(state: ShowState): number {
  const sizes = closedRounds(state).flatMap((round) =>
    round.verdicts
      .filter((verdict) => verdict.reason === 1)
      .map((verdict) => Number(verdict.payloadBytes)),
  );
  return sizes.length === 0 ? 0 : sizes.reduce((sum, size) => sum + size, 0) / sizes.length;
}
