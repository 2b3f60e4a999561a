import type { Hotkey } from "@covenant/contracts";
import type { Ledger } from "@covenant/ledger";
import type { SampleSource } from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import type { RunSetup } from "@covenant/runs";
import type { Clock, Logger } from "@covenant/runtime";
import type { RoundRules } from "@covenant/sparseloco";
import type { Broadcaster } from "./broadcaster.ts";
import type { CheckpointUploader } from "./checkpoint-uploader.ts";
import type { Colleagues } from "./colleagues.ts";
import type { Config } from "./config.ts";
import type { Evaluator } from "./evaluator.ts";
import type { Participants } from "./participants.ts";
import type { RoundBook } from "./round-book.ts";
import type { StateFiles } from "./state-files.ts";
import type { WeightSetter } from "./weight-setter.ts";

/** Everything the validator's loop works with. */
export type Judge = {
  config: Config;
  hotkey: Hotkey;
  setup: RunSetup;
  rules: RoundRules;
  book: RoundBook;
  files: StateFiles;
  evaluator: Evaluator;
  heldOut: SampleSource;
  participants: Participants;
  colleagues: Colleagues;
  ledger: Ledger;
  objects: ObjectStore;
  uploader: CheckpointUploader | undefined;
  weights: WeightSetter;
  broadcaster: Broadcaster;
  clock: Clock;
  logger: Logger;
  /** Aborted when the process ends. */
  signal: AbortSignal;
};
