// Makes a run: tokenizer, data, initial weights, the signed RunConfig, and its hash on the ledger.
import { readFile } from "node:fs/promises";
import { create } from "@bufbuild/protobuf";
import { canonicalBytes, type Hotkey, sha256, signMessage } from "@covenant/contracts";
import { DataSetSchema, type RunConfig, RunConfigSchema } from "@covenant/contracts/templar";
import { initialParameters, type ModelShape, stateRoot, tensorTable } from "@covenant/kernels";
import type { Ledger } from "@covenant/ledger";
import {
  buildDataSet,
  type DataShard,
  modelConfigOf,
  Tokenizer,
  trainTokenizer,
} from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import { CovenantError } from "@covenant/runtime";
import {
  createRunConfig,
  openRunConfig,
  RUN_CONFIG_BYTES_MAX,
  RUN_CONFIG_KEY,
  runBucket,
  runConfigHash,
} from "@covenant/sparseloco";
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
const shardSamples = 4096;
const tokenizerKey = "tokenizer.json";

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
  await modules.objects.put(runBucket(options.runId), RUN_CONFIG_KEY, bytes, {});
  await ledger.setCommitment({
    netuid: options.netuid,
    hotkey: options.owner,
    fields: [runConfigHash(config)],
  });
  return { config, parameterCount };
}

async function loadRun(
  options: CreateRunOptions,
  modules: { objects: ObjectStore; ledger: Ledger },
): Promise<RunConfig | undefined> {
  const committed = await modules.ledger.commitment(options.netuid, options.owner.address);
  if (!committed) return undefined;
  const bytes = await modules.objects.get(runBucket(options.runId), RUN_CONFIG_KEY, {
    maxBytes: RUN_CONFIG_BYTES_MAX,
  });
  const opened = openRunConfig(
    bytes,
    committed.fields[0] ?? new Uint8Array(),
    options.owner.address,
  );
  if (opened.ok) return opened.value;
  throw new CovenantError(
    "COV_RUN_CORRUPT",
    `The stored run ${options.runId} is not the one that the ledger holds: ${opened.problem.detail}.`,
    { remedy: "Restore the object store, or start over with --fresh." },
  );
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
  const config = createRunConfig({
    runId,
    model: modelConfigOf(shape),
    data: create(DataSetSchema, {
      bucket,
      train,
      heldOut,
      sequenceLength: preset.sequenceLength,
      tokenizerKey,
      tokenizerSha256: sha256(tokenizerBytes),
      heldOutBytesPerToken: data.heldOutBytesPerToken,
      licence: "public domain",
    }),
    genesisStateRoot: await stateRoot(initial, tensorTable(shape)),
    inner: {
      steps: preset.innerSteps,
      batchSize: preset.batchSize,
      peakLearningRate: preset.peakLearningRate,
    },
    seed: options.seed,
    rounds: preset.rounds,
    blocksPerWindow,
    checkpointEveryRounds: preset.checkpointEveryRounds,
    minimumPeers: preset.peers.filter(({ role }) => role !== "late").length,
  });
  config.signature = signMessage(RunConfigSchema, config, options.owner);
  return config;
}
