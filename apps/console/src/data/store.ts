// Everything the page shows, as signals. The watchers write, the views read.

import type { Job } from "@covenant/contracts/basilica";
import type { Round, Score } from "@covenant/contracts/gauntlet";
import type { PostTrainingStatus } from "@covenant/contracts/grail";
import type { WatchCheckpointsResponse } from "@covenant/contracts/registry";
import type { RunConfig } from "@covenant/contracts/templar";
import { computed, signal } from "@preact/signals";

export const run = signal<RunConfig | undefined>(undefined);
export const rounds = signal<ReadonlyMap<number, Round>>(new Map());
export const scores = signal<readonly Score[]>([]);
export const checkpoints = signal<readonly WatchCheckpointsResponse[]>([]);
export const post = signal<PostTrainingStatus | undefined>(undefined);
export const jobs = signal<ReadonlyMap<string, Job>>(new Map());
/** Which streams are connected, by service name. */
export const connected = signal<ReadonlyMap<string, boolean>>(new Map());

export const closedRounds = computed(() =>
  [...rounds.value.values()]
    .filter((round) => round.signedManifest !== undefined)
    .sort((a, b) => a.round - b.round),
);

export const currentRound = computed(() =>
  [...rounds.value.values()].sort((a, b) => a.round - b.round).at(-1),
);

/** Task names by hotkey are unknown to the mesh; a short address serves as a name. */
export function shortAddress(address: string): string {
  return address.length > 14 ? `${address.slice(0, 6)}…${address.slice(-5)}` : address;
}
