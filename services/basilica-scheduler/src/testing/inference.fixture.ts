import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildManifest, exportCheckpoint, uploadCheckpoint } from "@covenant/checkpoints";
import { hotkeyFromSeed, toHex } from "@covenant/contracts";
import { JobState } from "@covenant/contracts/basilica";
import { CheckpointRegistry, CheckpointStage } from "@covenant/contracts/registry";
import type { ModelShape } from "@covenant/kernels";
import { initialParameters } from "@covenant/kernels";
import { Tokenizer, trainTokenizer } from "@covenant/models";
import { closeClient, createClient } from "@covenant/runtime";
import type { TestMesh } from "./mesh.fixture.ts";
import { startMesh } from "./mesh.fixture.ts";
import type { TestProcess } from "./processes.fixture.ts";
import { eventually, startProcess } from "./processes.fixture.ts";

const replicaMain = fileURLToPath(new URL("../replica/main.ts", import.meta.url));
const root = new URL("../../../../", import.meta.url);
const registryMain = fileURLToPath(new URL("services/checkpoint-registry/src/main.ts", root));
const ledgerMain = fileURLToPath(new URL("packages/ledger/src/chain/main.ts", root));

const text =
  "The quick brown fox jumps over the lazy dog. 12 + 34 = 46. Größe, naïve, 日本語, 🦊! ";

/** Context of the tiny model. */
export const contextTokens = 128;
/** Name under which the tiny model is served. */
export const modelName = "covenant-tiny";

/** A whole serving side with one untrained model on real processes. */
export interface InferenceMesh {
  readonly mesh: TestMesh;
  readonly tokenizer: Tokenizer;
  readonly shape: ModelShape;
  readonly checkpointRoot: Uint8Array;
  readonly replicaAddress: string;
  /** Base of the OpenAI endpoint, ends in /v1. */
  readonly url: string;
  /** Submits a further job of replicas and waits until they serve. */
  addReplicas(name: string, count: number, config?: object): Promise<string>;
  close(): Promise<void>;
}

/** Starts ledger, registry, scheduler, node agent and as many replicas; loads a tiny random model. */
export async function startInferenceMesh(replicas = 1): Promise<InferenceMesh> {
  const mesh = await startMesh();
  try {
    return await startServing(mesh, replicas);
  } catch (error) {
    await mesh.close();
    throw error;
  }
}

async function startServing(mesh: TestMesh, replicas: number): Promise<InferenceMesh> {
  const { directory } = mesh;
  const ledger = await startProcess({
    main: ledgerMain,
    name: "ledger",
    directory,
    config: { listen: { port: 0 }, dataDirectory: join(directory, "ledger"), blockTimeMs: 300 },
  });
  const registryTls = await mesh.certificate("checkpoint-registry");
  const registry = await startProcess({
    main: registryMain,
    name: "registry",
    directory,
    config: { listen: { port: 0 }, tls: registryTls, dataDirectory: join(directory, "registry") },
  });
  const registryUrl = `https://${registry.endpoint}`;
  const { tokenizer, shape, checkpointRoot } = await publishModel(mesh, registryUrl);
  await mesh.startAgent("alpha", {
    workloads: { "inference-replica": { command: [process.execPath, replicaMain] } },
    capacity: { milliCpu: 8_000, memoryBytes: 8_000_000_000 },
  });
  const replicaTls = await mesh.certificate("participant");
  const hotkeySeedFile = join(directory, "replica.seed");
  const seed = new Uint8Array(32).fill(0x5e);
  writeFileSync(hotkeySeedFile, toHex(seed));
  const addReplicas = async (name: string, count: number, config: object = {}): Promise<string> => {
    const tasks = Array.from({ length: count }, (_, index) => ({
      name: `replica-${index}`,
      workload: "inference-replica",
      configJson: JSON.stringify({
        listen: { host: "127.0.0.1", port: 0 },
        tls: replicaTls,
        dataDirectory: join(directory, `${name}-${index}`),
        hotkeySeedFile,
        registryUrl,
        ledger: { url: `http://${ledger.endpoint}`, netuid: 1 },
        runId: "tiny",
        model: modelName,
        threads: 1,
        ...config,
      }),
      resources: { milliCpu: 500, memoryBytes: 300_000_000n },
      maxRestarts: 2,
    }));
    const job = await mesh.submit({ name, tasks });
    await mesh.reach(job.id, JobState.RUNNING);
    await eventually(`replicas of ${name} serve`, async () => {
      const { job: now } = await mesh.scheduler.getJob({ jobId: job.id });
      return now?.tasks.every((task) => task.endpoint !== "");
    });
    return job.id;
  };
  await addReplicas("serving", replicas);
  const url = `${mesh.openAiUrl}/v1`;
  await eventually("the endpoint lists the model", async () => {
    const response = await fetch(`${url}/models`);
    const { data } = (await response.json()) as { data: unknown[] };
    return data.length > 0;
  });
  const processes: TestProcess[] = [registry, ledger];
  return {
    mesh,
    tokenizer,
    shape,
    checkpointRoot,
    replicaAddress: hotkeyFromSeed(seed).address,
    url,
    addReplicas,
    async close() {
      await mesh.close();
      for (const process of processes) await process.kill("SIGTERM");
    },
  };
}

async function publishModel(mesh: TestMesh, registryUrl: string) {
  const tokenizer = Tokenizer.fromJson(trainTokenizer(text.repeat(20), { vocabSize: 320 }));
  const shape: ModelShape = {
    vocabSize: tokenizer.vocabSize,
    hiddenSize: 32,
    intermediateSize: 64,
    layerCount: 2,
    headCount: 4,
    kvHeadCount: 2,
    maxPositions: contextTokens,
    ropeTheta: 10_000,
    rmsNormEps: 1e-5,
    tieWordEmbeddings: true,
  };
  // Larger than at the start of a training, so that the distributions are not flat.
  const parameters = initialParameters(shape, 7n).map((value) => value * 4);
  const files = exportCheckpoint(shape, parameters, tokenizer.toFiles(), { dtype: "F32" });
  const hotkey = hotkeyFromSeed(new Uint8Array(32).fill(9));
  const stage = CheckpointStage.RELEASE;
  const facts = { runId: "tiny", stage, version: 1, createdAtMs: 1_700_000_000_000 };
  const manifest = buildManifest(files, facts, hotkey);
  const tls = await mesh.certificate("operator");
  const client = createClient(CheckpointRegistry, { url: registryUrl, caFile: mesh.caFile, tls });
  await uploadCheckpoint(client, files, manifest);
  closeClient(client);
  return { tokenizer, shape, checkpointRoot: manifest.root };
}
