// The numbers of the runs that `covenant up` can start.
import type { PeerRole } from "../show/state.ts";

/** One training peer of the show. */
export interface PeerPlan {
  name: string;
  role: PeerRole;
}

/** One rollout worker of the show. */
export interface WorkerPlan {
  name: string;
  behaviour: "honest" | "substituted";
}

/** Everything that decides what a run does and how large it is. */
export interface Preset {
  name: string;
  model: {
    vocabSize: number;
    hiddenSize: number;
    intermediateSize: number;
    layerCount: number;
    headCount: number;
    kvHeadCount: number;
    maxPositions: number;
  };
  sequenceLength: number;
  rounds: number;
  innerSteps: number;
  batchSize: number;
  peakLearningRate: number;
  checkpointEveryRounds: number;
  /** Text used, from the start; the whole file when larger than it. */
  textCharacters: number;
  heldOutShare: number;
  peers: PeerPlan[];
  workers: WorkerPlan[];
  /** The late peer starts when so many rounds are closed. */
  lateAfterRounds: number;
  /** Settings of grail-rl that differ from its defaults. */
  supervised: Record<string, number>;
  policy: Record<string, number>;
  question: string;
}

const peers: PeerPlan[] = [
  { name: "ada", role: "honest" },
  { name: "barbara", role: "honest" },
  { name: "grace", role: "honest" },
  { name: "dorothy", role: "honest" },
  { name: "edsger", role: "late" },
  { name: "magpie", role: "copier" },
  { name: "static", role: "noise" },
];

const workers: WorkerPlan[] = [
  { name: "worker-1", behaviour: "honest" },
  { name: "worker-2", behaviour: "honest" },
  { name: "worker-3", behaviour: "substituted" },
];

/** The demonstration: calibrated so that two cores finish it in minutes. */
const demo: Preset = {
  name: "demo",
  model: {
    vocabSize: 512,
    hiddenSize: 128,
    intermediateSize: 352,
    layerCount: 4,
    headCount: 4,
    kvHeadCount: 4,
    maxPositions: 256,
  },
  sequenceLength: 128,
  rounds: 32,
  innerSteps: 10,
  batchSize: 16,
  peakLearningRate: 3e-3,
  checkpointEveryRounds: 8,
  textCharacters: Number.POSITIVE_INFINITY,
  heldOutShare: 0.05,
  peers,
  workers,
  lateAfterRounds: 8,
  supervised: {},
  policy: {},
  // Two digits, as nine problems in ten have, and never trained on.
  question: "46+2=",
};

/** The same pipeline on a model so small that a test can afford it. */
const tiny: Preset = {
  ...demo,
  name: "tiny",
  model: {
    vocabSize: 320,
    hiddenSize: 64,
    intermediateSize: 128,
    layerCount: 2,
    headCount: 2,
    kvHeadCount: 2,
    maxPositions: 128,
  },
  sequenceLength: 64,
  rounds: 10,
  innerSteps: 6,
  batchSize: 8,
  checkpointEveryRounds: 3,
  textCharacters: 200_000,
  lateAfterRounds: 3,
  policy: { versions: 4 },
};

export const presets: Readonly<Record<string, Preset>> = { demo, tiny };
