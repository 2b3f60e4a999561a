import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  arithmetic,
  arithmeticPromptCounts,
  environmentId,
  evaluationSeed,
  findEnvironment,
  isEvaluationSeed,
  trainSeed,
  workedExample,
} from "./index.ts";

const anySeed = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

function evaluate(text: string): number {
  const [, left, operator, right] = /^(\d+)([+-])(\d+)=$/.exec(text)!;
  return operator === "+" ? Number(left) + Number(right) : Number(left) - Number(right);
}

test("an episode's answer is the value of its sum, and only that earns the reward", () => {
  fc.assert(
    fc.property(anySeed, fc.integer({ min: 0, max: 99 }), (seed, other) => {
      const episode = arithmetic.reset(seed);
      const value = evaluate(episode.messages[0]!.content);
      assert.equal(episode.answer, String(value));
      assert.equal(arithmetic.score(episode, episode.answer).reward, 1);
      assert.equal(arithmetic.score(episode, String(other)).reward, other === value ? 1 : 0);
    }),
  );
});

test("nothing but the exact answer earns anything", () => {
  const episode = { messages: [], answer: "12" };
  for (const text of [
    "",
    "1",
    "112",
    "12 12",
    "+12",
    "012",
    "12.0",
    "12=12",
    "twelve",
    "12\u0000",
  ]) {
    assert.equal(arithmetic.score(episode, text).reward, 0, text);
  }
});

test("held-out prompts never occur in training", () => {
  const train = new Set<string>();
  const heldOut = new Set<string>();
  for (let i = 0n; i < 20_000n; i++) {
    train.add(arithmetic.reset(trainSeed(i * 0x9e3779b97f4a7c15n)).messages[0]!.content);
    heldOut.add(arithmetic.reset(evaluationSeed(i * 0x9e3779b97f4a7c15n)).messages[0]!.content);
  }
  assert.equal(train.size, arithmeticPromptCounts.train);
  assert.equal(heldOut.size, arithmeticPromptCounts.heldOut);
  for (const prompt of heldOut) assert.ok(!train.has(prompt), prompt);
});

test("seeds say which side they are on", () => {
  fc.assert(
    fc.property(anySeed, (seed) => {
      assert.equal(isEvaluationSeed(trainSeed(seed)), false);
      assert.equal(isEvaluationSeed(evaluationSeed(seed)), true);
    }),
  );
});

test("a worked example is the prompt with its answer", () => {
  const messages = workedExample(arithmetic, 7n);
  assert.deepEqual(messages.at(-1), { role: "assistant", content: arithmetic.reset(7n).answer });
  assert.equal(findEnvironment(environmentId(arithmetic)), arithmetic);
  assert.equal(findEnvironment("arithmetic@2"), undefined);
});
