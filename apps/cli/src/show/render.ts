// Draws the show: a block that is redrawn in place on a terminal, a line per event elsewhere.
import { PostTrainingPhase } from "@covenant/contracts/grail";
import { bar, fit, formatBytes, formatDuration, sparkline } from "./format.ts";
import {
  bytesPerUpdate,
  closedRounds,
  heldOut,
  type PeerView,
  type ShowState,
  stages,
} from "./state.ts";

/** Where the show writes; a terminal can be redrawn. */
export interface Screen {
  write(text: string): void;
  isTerminal: boolean;
  columns: number;
  colour: boolean;
}

const eventLinesShown = 5;

/** The whole picture as lines, at most `columns` wide. */
export function drawBlock(state: ShowState, nowMs: number, columns: number): string[] {
  const lines = [drawStages(state, nowMs), "", ...drawRounds(state)];
  if (state.peers.length > 0) lines.push("", ...state.peers.map(drawPeer));
  if (state.postTraining) lines.push("", ...drawPostTraining(state));
  lines.push("", ...state.events.slice(-eventLinesShown).map((line) => `  · ${line}`));
  lines.push("", `${state.activity}`);
  return lines.map((line) => (line.length > columns ? `${line.slice(0, columns - 1)}…` : line));
}

function drawStages(state: ShowState, nowMs: number): string {
  const current = stages.indexOf(state.stage);
  const names = stages.slice(0, -1).map((stage, index) => {
    if (index < current) return `✓ ${stage}`;
    return index === current ? `▶ ${stage}` : `  ${stage}`;
  });
  const memory = state.peakRssBytes > 0 ? ` · peak ${formatBytes(state.peakRssBytes)}` : "";
  return `Covenant Mesh  ${names.join("  ")}   ${formatDuration(nowMs - state.startedAtMs)}${memory}`;
}

function drawRounds(state: ShowState): string[] {
  const closed = closedRounds(state);
  const latest = [...state.rounds.values()].at(-1);
  const measured = closed.filter((round) => round.heldOutBitsPerByte > 0);
  const { first, last } = heldOut(state);
  const bytes = bytesPerUpdate(state);
  const lines = [
    `Round ${String(closed.length).padStart(2)} of ${state.roundsPlanned}  ${bar(closed.length / Math.max(1, state.roundsPlanned), 24)}  ${latest?.reason ?? ""}`,
  ];
  if (last !== undefined) {
    const series = measured.map((round) => round.heldOutBitsPerByte);
    lines.push(
      `Held-out loss ${last.toFixed(3)} bits per byte${first ? ` (untrained ${first.toFixed(2)})` : ""}  ${sparkline(series, 32)}`,
    );
  }
  if (bytes > 0 && state.parameterCount > 0) {
    const full = state.parameterCount * 4;
    lines.push(
      `An update is ${formatBytes(bytes)} instead of ${formatBytes(full)}: ${(full / bytes).toFixed(0)} times smaller`,
    );
  }
  return lines;
}

function drawPeer(peer: PeerView): string {
  const share = `${(peer.weightShare * 100).toFixed(1)} %`.padStart(7);
  return [
    ` ${fit(peer.name, 10)}`,
    fit(`(${peer.role})`, 9),
    fit(peer.verdict, 27),
    `reward ${share} ${bar(peer.weightShare * 3, 12)}`,
    peer.reasons[0] ?? "",
  ].join(" ");
}

function drawPostTraining(state: ShowState): string[] {
  const status = state.postTraining;
  if (!status) return [];
  const lines: string[] = [];
  if (status.handoff && status.handoff.bytes > 0n) {
    const { bytes, seconds, chunks } = status.handoff;
    lines.push(
      `Checkpoint streamed to Grail: ${formatBytes(Number(bytes))} in ${chunks} verified chunks, ${seconds.toFixed(2)} s`,
    );
  }
  if (status.phase === PostTrainingPhase.SFT || status.sftLossAfter > 0) {
    const after = status.sftLossAfter > 0 ? status.sftLossAfter : status.loss;
    lines.push(
      `Fine-tuning: loss ${status.sftLossBefore.toFixed(3)} → ${after.toFixed(3)} nats per token`,
    );
  }
  if (status.phase >= PostTrainingPhase.GRPO) {
    const rejected = Object.entries(status.groupsRejected)
      .map(([reason, count]) => `${count} ${reason.replaceAll("_", " ")}`)
      .join(", ");
    lines.push(
      `GRPO step ${status.step} of ${status.totalSteps}: reward ${status.rewardBefore.toFixed(2)} → ${(status.rewardAfter || status.stepReward).toFixed(2)}`,
      `Groups of rollouts: ${status.groupsAccepted} proven${rejected ? `, rejected: ${rejected}` : ""}`,
    );
  }
  return lines;
}

/** Redraws the block in place, or prints new events as lines where nothing can be redrawn. */
export class Renderer {
  readonly #screen: Screen;
  #drawnLines = 0;
  #eventsPrinted = 0;
  #activityPrinted = "";

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  draw(state: ShowState, nowMs: number): void {
    if (this.#screen.isTerminal) this.#redraw(drawBlock(state, nowMs, this.#screen.columns));
    else this.#append(state, nowMs);
  }

  /** Leaves the last picture on the screen; what is written next goes below it. */
  finish(): void {
    this.#drawnLines = 0;
  }

  #redraw(lines: string[]): void {
    const up = this.#drawnLines > 0 ? `\u001b[${this.#drawnLines}A` : "";
    this.#screen.write(`${up}${lines.map((line) => `\u001b[2K${line}\n`).join("")}\u001b[J`);
    this.#drawnLines = lines.length;
  }

  #append(state: ShowState, nowMs: number): void {
    const at = formatDuration(nowMs - state.startedAtMs);
    for (; this.#eventsPrinted < state.events.length; this.#eventsPrinted += 1) {
      this.#screen.write(`${at} ${state.events[this.#eventsPrinted]}\n`);
    }
    if (state.activity !== this.#activityPrinted) {
      this.#activityPrinted = state.activity;
      this.#screen.write(`${at} ${state.activity}\n`);
    }
  }
}
