// Makes a run: tokenizer, data, initial weights, the signed RunConfig, and its hash on the ledger.
import { readFile } from "node:fs/promises";
import { create, fromBinary } from "@bufbuild/protobuf";
import { canonicalBytes, type Hotkey, sha256, signMessage } from "@covenant/contracts";
import { AggregationRule, type RunConfig, RunConfigSchema } from "@covenant/contracts/templar";
import { initialParameters, type ModelShape, stateRoot, tensorTable } from "@covenant/kernels";
import type { Ledger } from "@covenant/ledger";
import { buildDataSet, type DataShard, Tokenizer, trainTokenizer } from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import { CovenantError } from "@covenant/runtime";
import type { Preset } from "./preset.ts";

/** A created run. */
export interface CreatedRun {
  config: RunConfig;
  parameterCount: number;
}

/** Who makes the run, and with what. */
export interface CreateRunOptions {
  runId: string;
  preset: Preset;
  textFile: string;
  owner: Hotkey;
  coldkey: Hotkey;
  netuid: number;
  seed: bigint;
}

const blocksPerWindow = 2400;
const runFileBytesMax = 1 << 20;
const shardSamples = 4096;
const tokenizerKey = "tokenizer.json";

export const runBucket = (runId: string) => `run-${runId}`;

/** Kernel shape of a preset's model. */
export function shapeOf(preset: Preset): ModelShape {
  return { ...preset.model, ropeTheta: 10_000, rmsNormEps: 1e-5, tieWordEmbeddings: true };
}

/**
 * Creates the run, or returns the one that an earlier start created: the same run.pb, byte for byte.
 * @throws CovenantError COV_RUN_CORRUPT when the stored run and the ledger's commitment differ.
 */
export async function createRun(
  options: CreateRunOptions,
  modules: { objects: ObjectStore; ledger: Ledger },
): Promise<CreatedRun> {
  const shape = shapeOf(options.preset);
  const parameterCount = tensorTable(shape).reduce((sum, tensor) => sum + tensor.length, 0);
  const { ledger } = modules;
  await ledger.ensureRegistered({
    netuid: options.netuid,
    hotkey: options.owner,
    coldkey: options.coldkey,
  });
  const existing = await loadRun(options, modules);
  if (existing) return { config: existing, parameterCount };
  const config = await buildRun(options, shape, modules.objects);
  const bytes = canonicalBytes(RunConfigSchema, config);
  await modules.objects.put(runBucket(options.runId), "run.pb", bytes, {});
  await ledger.setCommitment({
    netuid: options.netuid,
    hotkey: options.owner,
    fields: [sha256(bytes)],
  });
  return { config, parameterCount };
}

async function loadRun(
  options: CreateRunOptions,
  modules: { objects: ObjectStore; ledger: Ledger },
): Promise<RunConfig | undefined> {
  const committed = await modules.ledger.commitment(options.netuid, options.owner.address);
  if (!committed) return undefined;
  const bytes = await modules.objects.get(runBucket(options.runId), "run.pb", {
    maxBytes: runFileBytesMax,
  });
  if (!Buffer.from(sha256(bytes)).equals(Buffer.from(committed.fields[0] ?? []))) {
    throw new CovenantError(
      "COV_RUN_CORRUPT",
      `run.pb of ${options.runId} is not the one whose hash the ledger holds.`,
      { remedy: "Restore the object store, or start over with --fresh." },
    );
  }
  return fromBinary(RunConfigSchema, bytes);
}

async function buildRun(
  options: CreateRunOptions,
  shape: ModelShape,
  objects: ObjectStore,
): Promise<RunConfig> {
  const { preset, runId } = options;
  const text = (await readFile(options.textFile, "utf8")).slice(0, preset.textCharacters);
  const tokenizerJson = trainTokenizer(text, { vocabSize: preset.model.vocabSize });
  const tokenizerBytes = Buffer.from(JSON.stringify(tokenizerJson));
  const bucket = runBucket(runId);
  await objects.put(bucket, tokenizerKey, tokenizerBytes, {});
  const data = buildDataSet(text, Tokenizer.fromJson(tokenizerJson), {
    sequenceLength: preset.sequenceLength,
    shardSamples,
    heldOutShare: preset.heldOutShare,
  });
  const store = (side: string, shards: readonly DataShard[]) =>
    Promise.all(
      shards.map(async ({ data: bytes, sha256: hash, sampleCount }, index) => {
        const key = `data/${side}-${String(index).padStart(5, "0")}.u16`;
        await objects.put(bucket, key, bytes, {});
        return { key, sha256: hash, sampleCount };
      }),
    );
  const train = await store("train", data.train);
  const heldOut = await store("held-out", data.heldOut);
  const initial = initialParameters(shape, options.seed);
  const config = create(RunConfigSchema, {
    runId,
    model: {
      vocabSize: shape.vocabSize,
      hiddenSize: shape.hiddenSize,
      intermediateSize: shape.intermediateSize,
      numHiddenLayers: shape.layerCount,
      numAttentionHeads: shape.headCount,
      numKeyValueHeads: shape.kvHeadCount,
      maxPositionEmbeddings: shape.maxPositions,
      ropeTheta: shape.ropeTheta,
      rmsNormEps: shape.rmsNormEps,
      tieWordEmbeddings: shape.tieWordEmbeddings,
    },
    seed: options.seed,
    data: {
      bucket,
      train,
      heldOut,
      sequenceLength: preset.sequenceLength,
      tokenizerKey,
      tokenizerSha256: sha256(tokenizerBytes),
      heldOutBytesPerToken: data.heldOutBytesPerToken,
      licence: "public domain",
    },
    inner: {
      steps: preset.innerSteps,
      batchSize: preset.batchSize,
      peakLearningRate: preset.peakLearningRate,
      warmupSteps: 20,
      finalLearningRateRatio: 0.1,
      beta1: 0.9,
      beta2: 0.95,
      epsilon: 1e-8,
      weightDecay: 0.1,
      gradientClip: 1,
    },
    outer: {
      codec: "covenant.sparse.v1/2bit",
      rule: AggregationRule.CONTRIBUTORS,
      learningRate: 1,
      errorDecay: 0.95,
      keepPerChunk: 64,
    },
    rounds: preset.rounds,
    blocksPerWindow,
    publishBlocks: 120,
    checkpointEveryRounds: preset.checkpointEveryRounds,
    protocolVersion: 1,
    genesisStateRoot: await stateRoot(initial, tensorTable(shape)),
    minimumPeers: preset.peers.filter(({ role }) => role !== "late").length,
  });
  config.signature = signMessage(RunConfigSchema, config, options.owner);
  return config;
}
