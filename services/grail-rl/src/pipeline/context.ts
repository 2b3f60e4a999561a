// What the phases of post-training share.
import path from "node:path";
import type { CheckpointFileData } from "@covenant/checkpoints";
import type { Hotkey } from "@covenant/contracts";
import type { CheckpointRegistry } from "@covenant/contracts/registry";
import { type Environment, findEnvironment } from "@covenant/grail";
import type { Ledger } from "@covenant/ledger";
import { type DeviceOptions, Tokenizer } from "@covenant/models";
import {
  type Clock,
  CovenantError,
  type createClient,
  type Logger,
  readFileLimited,
  writeFileAtomic,
} from "@covenant/runtime";
import type { Desk } from "../desk/desk.ts";
import type { PolicyOptions, RolloutOptions, SupervisedOptions } from "../settings.ts";
import type { Job } from "../state/job.ts";
import type { SignalBox } from "../state/signal-box.ts";
import type { Store } from "../state/store.ts";

/** A client of the checkpoint registry. */
export type RegistryClient = ReturnType<typeof createClient<typeof CheckpointRegistry>>;

/** Settings that the phases read. */
export interface PipelineOptions extends DeviceOptions {
  dataDirectory: string;
  environment: string;
  ledger: { netuid: number };
  supervised: SupervisedOptions;
  policy: PolicyOptions;
  rollouts: RolloutOptions;
}

/** Collaborators of the phases. */
export interface PipelineModules {
  store: Store;
  desk: Desk;
  registry: RegistryClient;
  ledger: Pick<Ledger, "headBlock" | "metagraph" | "randomness">;
  hotkey: Hotkey;
  logger: Logger;
  clock: Clock;
  /** Told of every change of a job. */
  changes: SignalBox;
}

/** One phase's view of its job. */
export interface PhaseContext {
  readonly job: Job;
  readonly options: PipelineOptions;
  readonly modules: PipelineModules;
  readonly signal: AbortSignal;
  /** Changes the job; on disk when it resolves, and then told to watchers. */
  update(change: Partial<Job>): Promise<void>;
}

const tokenizerBytesMax = 64 << 20;
const tokenizerFileNames = ["tokenizer.json", "tokenizer_config.json"];

/** A file of the job's folder. */
export function jobFile(context: PhaseContext, ...names: string[]): string {
  return path.join(context.options.dataDirectory, "jobs", context.job.jobId, ...names);
}

/** Keeps the tokenizer that came with the checkpoint. */
export async function saveTokenizer(
  context: PhaseContext,
  files: readonly CheckpointFileData[],
): Promise<void> {
  for (const file of files) {
    if (tokenizerFileNames.includes(file.path)) {
      await writeFileAtomic(jobFile(context, file.path), file.data);
    }
  }
}

/** The kept tokenizer and its files, as checkpoints carry them. */
export async function loadTokenizer(
  context: PhaseContext,
): Promise<{ tokenizer: Tokenizer; files: CheckpointFileData[] }> {
  const files: CheckpointFileData[] = [];
  for (const name of tokenizerFileNames) {
    files.push({
      path: name,
      data: await readFileLimited(jobFile(context, name), tokenizerBytesMax),
    });
  }
  return { tokenizer: Tokenizer.fromFiles(files), files };
}

/** The configured environment. */
export function environmentOf(id: string): Environment {
  const environment = findEnvironment(id);
  if (environment === undefined) {
    throw new CovenantError("COV_ENVIRONMENT_UNKNOWN", `There is no environment ${id}.`, {
      metadata: { environment: id },
    });
  }
  return environment;
}
