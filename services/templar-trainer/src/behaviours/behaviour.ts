import type { TrainableModel } from "@covenant/kernels";
import type { Ledger } from "@covenant/ledger";
import type { SampleSource } from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import type { RunSetup } from "@covenant/runs";
import type { Clock, Logger } from "@covenant/runtime";

/** What one inner step did. */
export type StepReport = { innerStep: number; loss: number; tokensPerSecond: number };

/** What a behaviour works with in one round. */
export type RoundWork = {
  round: number;
  setup: RunSetup;
  /** Parameters at the start of the round; not to be changed. */
  theta: Float32Array;
  /** Holds the parameters of `theta` and the peer's moments; may be trained. */
  model: TrainableModel;
  /** A copy of the peer's error feedback; changed in place by compression. */
  errorFeedback: Float32Array;
  /** The peer's assigned samples, in order. */
  samples: Uint32Array;
  source: SampleSource;
  /** Aborted when the round closes without this peer, or on shutdown. */
  signal: AbortSignal;
  /** Called before every inner step; waits while the peer is paused. */
  beforeStep: () => Promise<void>;
  onStep: (report: StepReport) => void;
  ledger: Ledger;
  netuid: number;
  objects: ObjectStore;
  hotkey: string;
  clock: Clock;
  logger: Logger;
};

/** How a peer comes by the body of its update. Everything else (header, commitment, announcement) is the same for all. */
export type Behaviour = {
  readonly name: string;
  /** The body of the round's update in covenant.sparse.v1. */
  produceBody(work: RoundWork): Promise<Uint8Array>;
};
