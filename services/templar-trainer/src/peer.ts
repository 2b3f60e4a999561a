import type { Hotkey } from "@covenant/contracts";
import type { TrainableModel } from "@covenant/kernels";
import type { Ledger } from "@covenant/ledger";
import type { SampleSource } from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import type { RunSetup } from "@covenant/runs";
import type { Clock, Logger } from "@covenant/runtime";
import type { Behaviour } from "./behaviours/behaviour.ts";
import type { Gate } from "./gate.ts";
import type { RegistryClient } from "./registry-client.ts";
import type { RoundFeed } from "./round-feed.ts";
import type { StatusBoard } from "./status.ts";
import type { StateFiles } from "./trainer-state.ts";
import type { Validators } from "./validators.ts";

/** What a peer decides by itself. */
export type PeerOptions = {
  netuid: number;
  hotkey: Hotkey;
  /** The peer's own bucket in the object store. */
  bucket: string;
  behaviour: Behaviour;
  /** Recompute every merged update from the contributors' payloads. */
  verifyMerge: boolean;
  /** Rounds of delay from which a checkpoint is preferred to replaying everything. */
  checkpointBehindRounds: number;
  /** How long a failing call to ledger, store or validator is repeated before it is reported and begun anew. */
  retryBudgetMs: number;
  /** Where received checkpoints are kept while they are read. */
  checkpointDirectory: string;
};

/** Everything the peer's loop works with. */
export type Peer = PeerOptions & {
  setup: RunSetup;
  source: SampleSource;
  model: TrainableModel;
  files: StateFiles;
  ledger: Ledger;
  objects: ObjectStore;
  validators: Validators;
  registry: RegistryClient | undefined;
  feed: RoundFeed;
  status: StatusBoard;
  gate: Gate;
  clock: Clock;
  logger: Logger;
  /** Aborted when the process ends. */
  signal: AbortSignal;
};
