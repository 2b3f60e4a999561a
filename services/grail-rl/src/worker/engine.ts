// The worker's model: whatever checkpoint was asked for last, received and verified.
import { rm } from "node:fs/promises";
import path from "node:path";
import { bytesEqual, fromHex, toHex } from "@covenant/contracts";
import { CheckpointStage } from "@covenant/contracts/registry";
import type { TrainableModel } from "@covenant/kernels";
import { type DeviceOptions, openModel, Tokenizer } from "@covenant/models";
import { CovenantError, type Logger } from "@covenant/runtime";
import type { RegistryClient } from "../pipeline/context.ts";
import { receiveModel } from "../pipeline/receive.ts";

interface Loaded {
  root: Uint8Array;
  model: TrainableModel;
  tokenizer: Tokenizer;
}

type WorkerEngineOptions = DeviceOptions & { dataDirectory: string };

/** Holds one model at a time. */
export class WorkerEngine {
  readonly #options: WorkerEngineOptions;
  readonly #registry: RegistryClient;
  readonly #logger: Logger;
  #loaded: Loaded | undefined;

  constructor(options: WorkerEngineOptions, modules: { registry: RegistryClient; logger: Logger }) {
    this.#options = options;
    this.#registry = modules.registry;
    this.#logger = modules.logger;
  }

  /** The model of a checkpoint, from memory if it is the present one. */
  async load(root: Uint8Array, signal: AbortSignal): Promise<Loaded> {
    if (this.#loaded && bytesEqual(this.#loaded.root, root)) return this.#loaded;
    const directory = path.join(this.#options.dataDirectory, "checkpoints", toHex(root));
    const checkpoint = await receiveModel(this.#registry, root, directory, signal);
    this.close();
    const model = await openModel(checkpoint.shape, this.#options, {
      logger: this.#logger,
      parameters: checkpoint.parameters,
    });
    const tokenizer = Tokenizer.fromFiles(checkpoint.tokenizerFiles);
    this.#loaded = { root, model, tokenizer };
    // The weights are in memory; a restart asks for the newest policy anyway.
    await rm(directory, { recursive: true, force: true });
    return this.#loaded;
  }

  /** Frees the model. */
  close(): void {
    this.#loaded?.model.close();
    this.#loaded = undefined;
  }
}

/** Root of the newest pre-training checkpoint of a run; waits for nothing. */
export async function newestPretraining(
  registry: RegistryClient,
  runId: string,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { checkpoints } = await registry.listCheckpoints(
    { runId, stage: CheckpointStage.PRETRAIN, pageSize: 1 },
    { signal },
  );
  const root = checkpoints[0]?.manifest?.root;
  if (root === undefined) {
    throw new CovenantError("COV_CHECKPOINT_NOT_FOUND", `Run ${runId} has no checkpoint yet.`);
  }
  return root;
}

/** The root that a worker generates with: the contract's, or for a substituted one another. */
export async function generatingRoot(
  contractRoot: Uint8Array,
  options: { behaviour: string; substitutedRoot: string; runId: string },
  registry: RegistryClient,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (options.behaviour === "honest") return contractRoot;
  if (options.substitutedRoot !== "") return fromHex(options.substitutedRoot);
  return newestPretraining(registry, options.runId, signal);
}
