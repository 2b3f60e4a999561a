// A run for tests: a model of two layers that a round trains in milliseconds.
import { create } from "@bufbuild/protobuf";
import { type Hotkey, sha256, signMessage } from "@covenant/contracts";
import { ModelConfigSchema } from "@covenant/contracts/common";
import { DataSetSchema, RunConfigSchema } from "@covenant/contracts/templar";
import { SampleSource } from "@covenant/models";
import { type RunSetup, setupOf } from "@covenant/runs";
import { createRunConfig } from "@covenant/sparseloco";

/** The run, signed by its owner, and the samples that it trains on. */
export function tinyRun(owner: Hotkey): { setup: RunSetup; source: SampleSource } {
  const tokens = Uint16Array.from({ length: 64 * 9 }, (_, i) => (i * 7) % 16);
  const data = new Uint8Array(tokens.buffer);
  const shard = { key: "train/0", sha256: sha256(data), sampleCount: 64 };
  const run = createRunConfig({
    runId: "test",
    model: create(ModelConfigSchema, {
      vocabSize: 16,
      hiddenSize: 8,
      intermediateSize: 16,
      numHiddenLayers: 2,
      numAttentionHeads: 2,
      numKeyValueHeads: 2,
      maxPositionEmbeddings: 8,
      ropeTheta: 10_000,
      rmsNormEps: 1e-5,
      tieWordEmbeddings: true,
    }),
    data: create(DataSetSchema, {
      bucket: "run-test",
      train: [shard],
      heldOut: [shard],
      sequenceLength: 8,
      tokenizerKey: "t",
      tokenizerSha256: sha256(data),
      heldOutBytesPerToken: 1,
    }),
    genesisStateRoot: sha256(data),
    inner: { steps: 2, batchSize: 4, warmupSteps: 1 },
  });
  run.signature = signMessage(RunConfigSchema, run, owner);
  const source = new SampleSource([{ data, ...shard }], { sequenceLength: 8, vocabSize: 16 });
  return { setup: setupOf(run), source };
}
