import { create } from "@bufbuild/protobuf";
import { hotkeyFromSeed, sha256, signMessage } from "@covenant/contracts";
import { ModelConfigSchema } from "@covenant/contracts/common";
import { DataSetSchema, type RunConfig, RunConfigSchema } from "@covenant/contracts/templar";
import { createRunConfig } from "./run-config.ts";

/** A hotkey for tests, from one repeated byte. */
export function testHotkey(byte: number) {
  return hotkeyFromSeed(new Uint8Array(32).fill(byte));
}

/** A small valid signed run for tests. */
export function testRun(): RunConfig {
  const hash = sha256(new Uint8Array([1]));
  const shard = { key: "train/0", sha256: hash, sampleCount: 4000 };
  const run = createRunConfig({
    runId: "test",
    model: create(ModelConfigSchema, {
      vocabSize: 512,
      hiddenSize: 32,
      intermediateSize: 64,
      numHiddenLayers: 2,
      numAttentionHeads: 2,
      numKeyValueHeads: 2,
      maxPositionEmbeddings: 64,
      ropeTheta: 10_000,
      rmsNormEps: 1e-5,
      tieWordEmbeddings: true,
    }),
    data: create(DataSetSchema, {
      bucket: "run-test",
      train: [shard],
      heldOut: [{ ...shard, key: "held-out/0", sampleCount: 100 }],
      sequenceLength: 64,
      tokenizerKey: "tokenizer.json",
      tokenizerSha256: hash,
      heldOutBytesPerToken: 2,
    }),
    genesisStateRoot: hash,
  });
  run.signature = signMessage(RunConfigSchema, run, testHotkey(1));
  return run;
}
