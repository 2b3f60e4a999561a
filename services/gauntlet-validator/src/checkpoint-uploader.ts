import {
  buildManifest,
  type CheckpointFileData,
  exportCheckpoint,
  uploadCheckpoint,
} from "@covenant/checkpoints";
import type { Hotkey } from "@covenant/contracts";
import type { RoundManifest } from "@covenant/contracts/gauntlet";
import { CheckpointRegistry, CheckpointStage } from "@covenant/contracts/registry";
import { bitsPerByte, makeTokenizerConfig } from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import { loadTokenizerJson, type RunSetup } from "@covenant/runs";
import { type Clock, createClient, type Logger } from "@covenant/runtime";
import type { RoundBook } from "./round-book.ts";
import type { StateFiles } from "./state-files.ts";

const REGISTRY_TIMEOUT_MS = 60_000;
const PARENT_FACT = "checkpoint-parent";

/** Where checkpoints go. */
export type CheckpointUploaderOptions = {
  registryUrl: string;
  caFile: string;
  hotkey: Hotkey;
  setup: RunSetup;
};

/** What uploading works with. */
export type CheckpointUploaderModules = {
  objects: ObjectStore;
  files: StateFiles;
  book: RoundBook;
  clock: Clock;
  logger: Logger;
};

/** Exports the state after a round as a Hugging Face directory and brings it to the registry, signed. */
export class CheckpointUploader {
  readonly #options: CheckpointUploaderOptions;
  readonly #modules: CheckpointUploaderModules;
  readonly #client;

  constructor(options: CheckpointUploaderOptions, modules: CheckpointUploaderModules) {
    this.#options = options;
    this.#modules = modules;
    const { registryUrl: url, caFile, hotkey } = options;
    const timeoutMs = REGISTRY_TIMEOUT_MS;
    this.#client = createClient(CheckpointRegistry, { url, caFile, hotkey, timeoutMs });
  }

  /** Uploads the checkpoint of a signed round; repeating it after a stop uploads the same one. */
  async upload(round: RoundManifest, heldOutLoss: number | undefined): Promise<Uint8Array> {
    const { setup, hotkey } = this.#options;
    const { objects, files, book, clock, logger } = this.#modules;
    const parameters = await files.loadParameters(round.round, round.postStateRoot);
    const tokenizer = await tokenizerFiles(objects, setup);
    const data = setup.run.data!;
    const evaluation: Record<string, number> = { round: round.round };
    // Post-training waits for this mark.
    if (round.round + 1 === setup.run.rounds) evaluation.final = 1;
    if (heldOutLoss !== undefined) {
      evaluation.held_out_loss = heldOutLoss;
      evaluation.held_out_bits_per_byte = bitsPerByte(heldOutLoss, data.heldOutBytesPerToken);
    }
    const card = {
      runId: setup.run.runId,
      stage: `pretrain, round ${round.round}`,
      licence: data.licence,
      evaluation,
    };
    const contents = exportCheckpoint(setup.shape, parameters, tokenizer, { dtype: "F32", card });
    const known = await book.checkpoint(round.round);
    const createdAtMs = known?.createdAtMs ?? clock.nowMs();
    const parentHex = known?.parent ?? (await book.fact(PARENT_FACT)) ?? "";
    const facts = {
      runId: setup.run.runId,
      stage: CheckpointStage.PRETRAIN,
      version: round.round,
      parentRoot: new Uint8Array(Buffer.from(parentHex, "hex")),
      trainingStateRoot: round.postStateRoot,
      licence: data.licence,
      evaluation,
      createdAtMs,
    };
    const manifest = buildManifest(contents, facts, hotkey);
    await book.saveCheckpoint(round.round, { createdAtMs, parent: parentHex });
    const uploaded = await uploadCheckpoint(this.#client, contents, manifest, {}, { clock });
    const root = Buffer.from(uploaded.root).toString("hex");
    await book.saveFact(PARENT_FACT, root);
    const { sentBytes, sequence } = uploaded;
    logger.info({ round: round.round, root, sentBytes, sequence: Number(sequence) }, "checkpoint");
    return uploaded.root;
  }
}

async function tokenizerFiles(
  objects: ObjectStore,
  setup: RunSetup,
): Promise<CheckpointFileData[]> {
  const config = makeTokenizerConfig(setup.shape.maxPositions);
  return [
    { path: "tokenizer.json", data: await loadTokenizerJson(objects, setup) },
    {
      path: "tokenizer_config.json",
      data: new TextEncoder().encode(`${JSON.stringify(config, null, 2)}\n`),
    },
  ];
}
