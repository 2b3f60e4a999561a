// From the registry to a model in memory: waits for the checkpoint, then streams it.
import path from "node:path";
import {
  chunkPlaces,
  type ImportedCheckpoint,
  importCheckpoint,
  type ReceiveResult,
  receiveCheckpoint,
} from "@covenant/checkpoints";
import { fromHex, toHex } from "@covenant/contracts";
import { type CheckpointManifest, CheckpointStage } from "@covenant/contracts/registry";
import { Model } from "@covenant/kernels";
import { CovenantError, readFileLimited } from "@covenant/runtime";
import { saveWeights } from "../state/weights-file.ts";
import { jobFile, type PhaseContext, type RegistryClient, saveTokenizer } from "./context.ts";

/** Whether a manifest is of the last checkpoint of a pre-training run. */
export function isFinalPretraining(manifest: CheckpointManifest): boolean {
  return manifest.stage === CheckpointStage.PRETRAIN && manifest.evaluation.final === 1;
}

/** Whether a staked participant signed: uploads are open to all, hand-off is not. */
async function isSignedByStake(
  manifest: CheckpointManifest,
  { modules, options }: PhaseContext,
): Promise<boolean> {
  const neurons = await modules.ledger.metagraph(options.ledger.netuid);
  const signer = neurons.find((neuron) => neuron.hotkey === manifest.signature?.hotkey);
  return signer !== undefined && signer.stakeRao > 0n;
}

/** Waits until the checkpoint to start from is known. */
export async function waitForCheckpoint(context: PhaseContext): Promise<void> {
  const { job, modules, signal } = context;
  let sourceRoot = job.requestedRoot;
  if (sourceRoot === "") {
    const stream = modules.registry.watchCheckpoints(
      { runId: job.runId, afterSequence: 0n },
      { signal },
    );
    for await (const { manifest } of stream) {
      if (manifest === undefined || !isFinalPretraining(manifest)) continue;
      if (!(await isSignedByStake(manifest, context))) {
        const signer = manifest.signature?.hotkey;
        modules.logger.warn({ signer, root: toHex(manifest.root) }, "checkpoint without stake");
        continue;
      }
      sourceRoot = toHex(manifest.root);
      break;
    }
  }
  if (sourceRoot === "") {
    throw new CovenantError("COV_UNAVAILABLE", "The registry ended its stream of checkpoints.");
  }
  await context.update({ sourceRoot, phase: "receiving" });
}

/** Receives a checkpoint into a folder, resuming what is there, and opens it. */
export async function receiveModel(
  registry: RegistryClient,
  root: Uint8Array,
  directory: string,
  signal: AbortSignal,
): Promise<ImportedCheckpoint & { received: ReceiveResult }> {
  const received = await receiveCheckpoint(registry, root, { directory, signal });
  const files = await Promise.all(
    received.files.map(async (name) => ({
      path: name,
      data: await readFileLimited(path.join(directory, name), received.bytes),
    })),
  );
  return { ...importCheckpoint(files), received };
}

/** Receives the checkpoint, verified against its root, and keeps what later phases need of it. */
export async function receive(context: PhaseContext): Promise<void> {
  const { job, modules, options, signal } = context;
  const root = fromHex(job.sourceRoot);
  const checkpoint = await receiveModel(modules.registry, root, jobFile(context, "source"), signal);
  const { received, shape, parameters, tokenizerFiles } = checkpoint;
  await saveTokenizer(context, tokenizerFiles);
  const model = await Model.create(shape, { threads: options.threads, parameters });
  try {
    await saveWeights(jobFile(context, "source.bin"), model, 0);
  } finally {
    model.close();
  }
  const handoff = {
    bytes: received.bytes,
    seconds: received.seconds,
    chunks: chunkPlaces(received.manifest).length,
    resumedChunks: received.resumedChunks,
  };
  modules.logger.info({ root: job.sourceRoot, ...handoff }, "checkpoint received");
  await context.update({ handoff, phase: "sft" });
}
