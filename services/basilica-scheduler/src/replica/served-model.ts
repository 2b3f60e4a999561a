import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Client } from "@connectrpc/connect";
import {
  importCheckpoint,
  readCheckpointDirectory,
  receiveCheckpoint,
} from "@covenant/checkpoints";
import { fromHex, toHex } from "@covenant/contracts";
import type { CheckpointRegistry } from "@covenant/contracts/registry";
import { CheckpointStage } from "@covenant/contracts/registry";
import type { TrainableModel } from "@covenant/kernels";
import { openModel, Tokenizer } from "@covenant/models";
import type { Clock, Logger } from "@covenant/runtime";
import { fromUnknown } from "@covenant/runtime";
import type { ReplicaConfig } from "./config.ts";

/** A model ready to answer. */
export interface ServedModel {
  readonly id: string;
  readonly root: Uint8Array;
  readonly createdAtMs: number;
  readonly model: TrainableModel;
  readonly tokenizer: Tokenizer;
  /** Tokens that end an answer. */
  readonly stopTokens: readonly number[];
}

const retryMs = 1_000;

interface Modules {
  readonly registry: Client<typeof CheckpointRegistry>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Waits for the checkpoint, receives it, verified, and loads it. */
export async function loadServedModel(
  config: ReplicaConfig,
  modules: Modules,
): Promise<ServedModel> {
  const { registry, logger, signal, clock } = modules;
  const root =
    config.checkpointRoot === undefined
      ? await newestRelease(config.runId, modules)
      : fromHex(config.checkpointRoot);
  const parent = join(config.dataDirectory, "checkpoints");
  await mkdir(parent, { recursive: true });
  const directory = join(parent, toHex(root));
  const received = await receiveCheckpoint(
    registry,
    root,
    {
      directory,
      signal,
      maxBytes: config.checkpointBytesMax,
      ...(config.signer !== undefined && { signer: config.signer }),
    },
    { clock },
  );
  const { bytes, seconds, resumedChunks } = received;
  logger.info({ root: toHex(root), bytes, seconds, resumedChunks }, "checkpoint received");
  const files = await readCheckpointDirectory(directory, {
    maxBytes: config.checkpointBytesMax,
    paths: received.files,
  });
  const { shape, parameters, tokenizerFiles } = importCheckpoint(files);
  const model = await openModel(shape, config, { logger, parameters });
  const tokenizer = Tokenizer.fromFiles(tokenizerFiles);
  const createdAtMs = Number(received.manifest.createdAtMs);
  return {
    id: config.model,
    root,
    createdAtMs,
    model,
    tokenizer,
    stopTokens: endTokens(tokenizer),
  };
}

async function newestRelease(runId: string, modules: Modules): Promise<Uint8Array> {
  const { registry, logger, signal, clock } = modules;
  for (;;) {
    signal.throwIfAborted();
    try {
      const stage = CheckpointStage.RELEASE;
      const { checkpoints } = await registry.listCheckpoints(
        { runId, stage, pageSize: 1 },
        { signal },
      );
      const root = checkpoints[0]?.manifest?.root;
      if (root !== undefined) return root;
      logger.info({ runId }, "waiting for a release");
    } catch (error) {
      const { code, message, retryable } = fromUnknown(error);
      if (!retryable) throw error;
      logger.warn({ code, message }, "the registry cannot be asked");
    }
    await clock.sleep(retryMs, signal);
  }
}

/** End of text, and the end of a turn where the tokenizer knows turns. */
function endTokens(tokenizer: Tokenizer): number[] {
  const ends = [tokenizer.eosId];
  const turn = tokenizer.json.added_tokens.find((token) => token.content === "<|end|>");
  return turn === undefined ? ends : [...ends, turn.id];
}
