// A checkpoint means the same to this project's kernels and to Hugging Face transformers.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  type CheckpointFileData,
  importCheckpoint,
  llamaTensors,
  type ModelShape,
} from "@covenant/checkpoints";
import { Model, tensorTable } from "@covenant/kernels";
import {
  buildDataSet,
  type LearningRateSchedule,
  meanLoss,
  runInnerSteps,
  SampleSource,
  Tokenizer,
  trainTokenizer,
} from "@covenant/models";
import {
  referenceFiles,
  referenceParameters,
  referenceShape,
} from "../vectors/checkpoints/reference-model.ts";

interface Golden {
  weightsSha256: string;
  greedy: number[];
  cases: {
    ids: number[];
    nextLogProbs: number[];
    entropy: number[];
    topTokens: number[][];
    topLogProbs: number[][];
  }[];
}

const vectors = new URL("../vectors/checkpoints/", import.meta.url);
const readGolden = (name: string): Golden =>
  JSON.parse(readFileSync(new URL(name, vectors), "utf8"));

/** Exactness promised against transformers in fp32. */
const TOLERANCE = 1e-4;

/** Compares every position of every case: next token, entropy, most probable tokens. */
async function compare(files: readonly CheckpointFileData[], golden: Golden): Promise<void> {
  const { shape, parameters } = importCheckpoint(files);
  const model = await Model.create(shape, { parameters, threads: 1 });
  try {
    for (const { ids, nextLogProbs, entropy, topTokens, topLogProbs } of golden.cases) {
      const tokens = Int32Array.from(ids);
      const targets = Int32Array.from([...ids.slice(1), ids[0]!]);
      const batch = { tokens, targets, sequences: 1, sequenceLength: ids.length };
      const result = await model.forward(batch, { topLogProbs: 8 });
      const close = (actual: number, expected: number, what: string): void =>
        assert.ok(
          Math.abs(actual - expected) <= TOLERANCE,
          `${what}: ${actual} is not ${expected}`,
        );
      nextLogProbs.forEach((expected, i) => {
        close(result.logProbs[i]!, expected, `log-probability at ${i}`);
      });
      entropy.forEach((expected, i) => {
        close(result.entropy[i]!, expected, `entropy at ${i}`);
      });
      assert.deepEqual([...result.topTokens!], topTokens.flat());
      topLogProbs.flat().forEach((expected, i) => {
        close(result.topLogProbs![i]!, expected, `top log-probability ${i}`);
      });
    }
    const [completion] = await model.generate([
      {
        prompt: Int32Array.from(golden.cases[0]!.ids),
        maxNewTokens: golden.greedy.length,
        temperature: 0,
        topK: 0,
        topP: 1,
        stopTokens: [0, 3],
        samplingSeed: new Uint8Array(32),
      },
    ]);
    assert.deepEqual([...completion!.tokens], golden.greedy);
  } finally {
    model.close();
  }
}

for (const dtype of ["F32", "BF16"] as const) {
  test(`an exported ${dtype} checkpoint computes what transformers computes from it`, async () => {
    const golden = readGolden(`golden-${dtype.toLowerCase()}.json`);
    const files = referenceFiles(dtype);
    const weights = files.find(({ path }) => path === "model.safetensors")!.data;
    const hash = createHash("sha256").update(weights).digest("hex");
    assert.equal(hash, golden.weightsSha256, "the export changed: make the vectors again");
    await compare(files, golden);
  });
}

test("a checkpoint that transformers saved is read back bit for bit", async () => {
  const files = ["config.json", "model.safetensors"].map((path) => ({
    path,
    data: new Uint8Array(readFileSync(new URL(`from-transformers/${path}`, vectors))),
  }));
  const { shape, parameters } = importCheckpoint(files);
  assert.deepEqual(shape, referenceShape);
  assert.deepEqual(parameters, referenceParameters());
  await compare(files, readGolden("golden-f32.json"));
});

test("checkpoints and kernels agree on the tensors of a shape", () => {
  for (const changes of [{}, { tieWordEmbeddings: false }, { layerCount: 1, kvHeadCount: 4 }]) {
    const shape: ModelShape = { ...referenceShape, ...changes };
    const plain = tensorTable(shape).map(({ name, shape: dims, offset, length }) => ({
      name,
      shape: [...dims],
      offset,
      length,
    }));
    assert.deepEqual(llamaTensors(shape), plain);
  }
});

test("a model trained on tokenised text fits what it was held out from", async () => {
  const text = readFileSync(new URL("../../../data/shakespeare.txt", vectors), "utf8").slice(
    0,
    60_000,
  );
  const tokenizer = Tokenizer.fromJson(trainTokenizer(text, { vocabSize: 300 }));
  const set = buildDataSet(text, tokenizer, {
    sequenceLength: 32,
    shardSamples: 256,
    heldOutShare: 0.1,
  });
  const { vocabSize } = tokenizer;
  const train = new SampleSource(set.train, { sequenceLength: 32, vocabSize });
  const heldOut = new SampleSource(set.heldOut, { sequenceLength: 32, vocabSize });
  const model = await Model.create(referenceShape, {
    parameters: referenceParameters(),
    threads: 1,
  });
  const schedule: LearningRateSchedule = {
    peakLearningRate: 0.01,
    warmupSteps: 5,
    totalSteps: 60,
    finalLearningRateRatio: 0.1,
    decay: "cosine",
  };
  const optimizer = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, gradientClip: 1 };
  try {
    const before = await meanLoss(model, heldOut.batches(16));
    const result = await runInnerSteps(model, {
      batches: train.batches(8, 0, 480),
      optimizer,
      schedule,
    });
    const after = await meanLoss(model, heldOut.batches(16));
    assert.equal(result.steps, 60);
    assert.equal(result.tokens, 60 * 8 * 32);
    assert.ok(before > Math.log(vocabSize) - 0.5, `before: ${before}`);
    assert.ok(after < before - 1, `held-out loss went from ${before} to ${after}`);
  } finally {
    model.close();
  }
});
