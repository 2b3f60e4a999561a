import assert from "node:assert/strict";
import { test } from "node:test";
import { arithmetic, evaluationSeed, trainSeed } from "@covenant/grail";
import { initialParameters, Model } from "@covenant/kernels";
import { Tokenizer, trainTokenizer } from "@covenant/models";
import { hasCode, readFileLimited, writeFileAtomic } from "@covenant/runtime";
import { recordingLogger, temporaryDirectory } from "@covenant/runtime/testing";
import { loadWeights, saveWeights } from "../state/weights-file.ts";
import { tinyShape } from "../testing/mesh.ts";
import { type PolicySettings, policyLearningRate, trainPolicy } from "./policy-step.ts";
import { exampleRow, gradedText, promptTokens, rewardOf } from "./prompts.ts";

const json = trainTokenizer("12+34=46 nine and seven ".repeat(40), {
  vocabSize: tinyShape.vocabSize,
});
const tokenizer = Tokenizer.fromJson(json);
const shape = { ...tinyShape, vocabSize: tokenizer.vocabSize };
const create = (seed: bigint) =>
  Model.create(shape, { threads: 1, parameters: initialParameters(shape, seed) });

test("only the exact answer and its stop token earn the reward", () => {
  const seed = trainSeed(3n);
  const { answer } = arithmetic.reset(seed);
  const end = tokenizer.specialId("<|end|>");
  const user = tokenizer.specialId("<|user|>");
  const right = [...tokenizer.encode(answer)];
  assert.equal(rewardOf(tokenizer, arithmetic, seed, [...right, end]), 1);
  assert.equal(rewardOf(tokenizer, arithmetic, seed, right), 1);
  // Special tokens inside the answer are text to the grader, not nothing.
  assert.equal(rewardOf(tokenizer, arithmetic, seed, [user, ...right, end]), 0);
  assert.equal(rewardOf(tokenizer, arithmetic, seed, [...right, user, end]), 0);
  assert.equal(gradedText(tokenizer, [...right, end, end]), `${answer}<|end|>`);
});

test("an example is its prompt, then scored tokens", () => {
  const seed = evaluationSeed(4n);
  const row = exampleRow(tokenizer, arithmetic, seed);
  const prompt = promptTokens(tokenizer, arithmetic, seed);
  assert.deepEqual(Array.from(row.tokens).slice(0, row.scoredFrom), [...prompt]);
  const scored = Array.from(row.tokens).slice(row.scoredFrom);
  assert.equal(gradedText(tokenizer, scored), arithmetic.reset(seed).answer);
});

const settings: PolicySettings = {
  rule: "grpo",
  clipLow: 0.2,
  clipHigh: 0.28,
  klCoefficient: 0.01,
  learningRate: 1e-3,
  warmupVersions: 0,
  finalLearningRateRatio: 0.1,
  versions: 5,
  epochs: 2,
  batchCompletions: 4,
  maxNewTokens: 4,
};

test("a policy step makes rewarded completions likelier and the others less likely", async () => {
  const model = await create(1n);
  const reference = await create(1n);
  const prompt = [...promptTokens(tokenizer, arithmetic, 9n)];
  const completions = [
    [5, 6],
    [7, 8],
    [9, 10],
    [11, 12],
  ];
  const likelihood = async (completion: number[]) => {
    const replay = await model.replay([
      {
        prompt: Int32Array.from(prompt),
        completion: Int32Array.from(completion),
        temperature: 1,
        topK: 0,
        topP: 1,
        samplingSeed: new Uint8Array(32),
      },
    ]);
    return replay[0]!.logProbs.reduce((sum, value) => sum + value, 0);
  };
  const before = await Promise.all(completions.map(likelihood));
  const group = { promptTokens: prompt, completions, rewards: [1, 0, 0, 0] };
  const step = { version: 0, padToken: tokenizer.eosId };
  const report = await trainPolicy(model, reference, [group], settings, step);
  const after = await Promise.all(completions.map(likelihood));
  assert.ok(after[0]! > before[0]!);
  for (const i of [1, 2, 3]) assert.ok(after[i]! < before[i]!, `completion ${i}`);
  assert.equal(report.completions, 4);
  assert.ok(report.kl >= 0 && report.entropy > 0);
  model.close();
  reference.close();
});

test("the learning rate rises over the first versions and falls to its final share", () => {
  const warmed = { ...settings, warmupVersions: 2, versions: 5 };
  assert.equal(policyLearningRate(warmed, 0), 0.5e-3);
  assert.ok(policyLearningRate(warmed, 1) > policyLearningRate(warmed, 2));

  assert.equal(policyLearningRate(settings, 0), 1e-3);
  assert.ok(Math.abs(policyLearningRate(settings, 4) - 1e-4) < 1e-12);
  assert.ok(Math.abs(policyLearningRate(settings, 9) - 1e-4) < 1e-12);
});

test("weights come back bit for bit, and a damaged file is refused", async (t) => {
  const path = `${await temporaryDirectory(t)}/weights.bin`;
  const model = await create(3n);
  model.firstMoment.fill(0.25);
  model.secondMoment.fill(0.5);
  model.optimizerStepCount = 7;
  await saveWeights(path, model, 42);
  const onCpu = { device: "cpu", deviceLayout: "data-parallel", threads: 1 } as const;
  const load = () => loadWeights(path, onCpu, recordingLogger());
  const { model: loaded, progress } = await load();
  assert.equal(progress, 42);
  assert.equal(loaded.optimizerStepCount, 7);
  for (const buffer of ["parameters", "firstMoment", "secondMoment"] as const) {
    assert.deepEqual(await loaded.read(buffer), model[buffer]);
  }
  loaded.close();
  model.close();
  const bytes = await readFileLimited(path, 1 << 30);
  const middle = bytes.length >> 1;
  const flipped = bytes.with(middle, bytes[middle]! ^ 1);
  for (const damaged of [bytes.slice(0, 20), flipped, bytes.slice(1)]) {
    await writeFileAtomic(path, damaged);
    await assert.rejects(load(), (error) => hasCode(error, "COV_STATE_CORRUPT"));
  }
});
