// A run as a participant sees it: checked configuration, what follows from it, and its data.
import { bytesEqual, sha256 } from "@covenant/contracts";
import type { RunConfig } from "@covenant/contracts/templar";
import {
  type ModelShape,
  sparseSize,
  type TensorInfo,
  tensorTable,
  tensorTableRoot,
} from "@covenant/kernels";
import type { Ledger } from "@covenant/ledger";
import { modelShapeOf, SampleSource } from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import { CovenantError } from "@covenant/runtime";
import {
  type AssignmentRules,
  assignmentRules,
  codecMode,
  openRunConfig,
  PAYLOAD_OVERHEAD_BYTES,
  RUN_CONFIG_BYTES_MAX,
  RUN_CONFIG_KEY,
  runBucket,
} from "@covenant/sparseloco";

/** A verified run and what follows from it. */
export type RunSetup = {
  run: RunConfig;
  shape: ModelShape;
  tensors: readonly TensorInfo[];
  parameterCount: number;
  tensorTableRoot: Uint8Array;
  assignment: AssignmentRules;
  payloadBytesMax: number;
};

/** Where a run comes from. */
export type RunSource = { ledger: Ledger; objects: ObjectStore; netuid: number };

/**
 * Fetches the run and checks it against the owner's commitment on the ledger. Throws COV_RUN_NOT_COMMITTED while the owner has
 * committed nothing (worth a retry) and COV_RUN_INVALID when the stored run is another one or out of bounds.
 */
export async function loadRun(source: RunSource, runId: string, owner: string): Promise<RunSetup> {
  const commitment = await source.ledger.commitment(source.netuid, owner);
  const committed = commitment?.fields[0];
  if (committed === undefined || committed.length !== 32) {
    throw new CovenantError("COV_RUN_NOT_COMMITTED", `${owner} has committed no run`, {
      metadata: { runId, owner },
    });
  }
  const bytes = await source.objects.get(runBucket(runId), RUN_CONFIG_KEY, {
    maxBytes: RUN_CONFIG_BYTES_MAX,
  });
  const checked = openRunConfig(bytes, committed, owner);
  if (!checked.ok) {
    throw new CovenantError("COV_RUN_INVALID", `run ${runId}: ${checked.problem.detail}`, {
      metadata: { runId, code: checked.problem.code },
    });
  }
  return setupOf(checked.value);
}

/** Everything that follows from a verified run. */
export function setupOf(run: RunConfig): RunSetup {
  const shape = modelShapeOf(run.model!);
  const tensors = tensorTable(shape);
  const outer = run.outer!;
  const mode = codecMode(outer.codec);
  const { bodyBytes } = sparseSize(tensors, { keepPerChunk: outer.keepPerChunk, mode });
  return {
    run,
    shape,
    tensors,
    parameterCount: tensors.reduce((sum, tensor) => sum + tensor.length, 0),
    tensorTableRoot: tensorTableRoot(tensors),
    assignment: assignmentRules(run),
    payloadBytesMax: bodyBytes + PAYLOAD_OVERHEAD_BYTES,
  };
}

/** Fetches the training or held-out shards; SampleSource checks every hash and token. */
export async function loadSamples(
  objects: ObjectStore,
  setup: RunSetup,
  part: "train" | "heldOut",
): Promise<SampleSource> {
  const data = setup.run.data!;
  const sampleBytes = (data.sequenceLength + 1) * 2;
  const shards = [];
  for (const shard of data[part]) {
    const maxBytes = shard.sampleCount * sampleBytes;
    const content = await objects.get(data.bucket, shard.key, { maxBytes });
    shards.push({ data: content, sha256: shard.sha256, sampleCount: shard.sampleCount });
  }
  const { sequenceLength } = data;
  return new SampleSource(shards, { sequenceLength, vocabSize: setup.shape.vocabSize });
}

/** Longest tokenizer file that is read. */
const TOKENIZER_BYTES_MAX = 64 * 1024 * 1024;

/** The run's tokenizer file, checked against its hash. */
export async function loadTokenizerJson(
  objects: ObjectStore,
  setup: RunSetup,
): Promise<Uint8Array> {
  const { bucket, tokenizerKey, tokenizerSha256 } = setup.run.data!;
  const bytes = await objects.get(bucket, tokenizerKey, { maxBytes: TOKENIZER_BYTES_MAX });
  if (!bytesEqual(sha256(bytes), tokenizerSha256)) {
    throw new CovenantError("COV_RUN_INVALID", `${tokenizerKey} is not the run's tokenizer`);
  }
  return bytes;
}
