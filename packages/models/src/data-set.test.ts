import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { trainTokenizer } from "./bpe-trainer.ts";
import { buildDataSet } from "./data-set.ts";
import { SampleSource } from "./sample-source.ts";
import { splitText } from "./text-split.ts";
import { Tokenizer } from "./tokenizer.ts";

const file = new URL("../../../data/shakespeare.txt", import.meta.url);
const text = readFileSync(file, "utf8").slice(0, 60_000);
const tokenizer = Tokenizer.fromJson(trainTokenizer(text, { vocabSize: 300 }));
const options = { sequenceLength: 32, shardSamples: 100, heldOutShare: 0.1 };
const source = (shards: ConstructorParameters<typeof SampleSource>[0]): SampleSource =>
  new SampleSource(shards, { sequenceLength: 32, vocabSize: tokenizer.vocabSize });

test("the split loses nothing, repeats nothing, and holds out about its share", () => {
  const lines = fc.array(fc.stringMatching(/^[a-c \n]{0,30}$/), { maxLength: 30 });
  fc.assert(
    fc.property(lines, fc.constantFrom(0, 0.1, 0.5), (documents, share) => {
      const { train, heldOut } = splitText(documents, share);
      const count = (pieces: string[]): number => pieces.join("").length;
      assert.equal(count(train) + count(heldOut), count(documents));
      if (share === 0) assert.equal(heldOut.length, 0);
    }),
  );
  const { train, heldOut } = splitText([text], 0.1);
  const share = heldOut.join("").length / text.length;
  assert.ok(share > 0.08 && share < 0.12, String(share));
  for (const piece of heldOut) assert.ok(text.includes(piece) && !train.join("").includes(piece));
});

test("every token but the first is a target exactly once, in order", () => {
  const set = buildDataSet(text, tokenizer, options);
  const train = source(set.train);
  assert.equal(train.sampleCount, set.trainSampleCount);
  const targets = [...train.batches(7)].flatMap((batch) => [...batch.targets]);
  const expected = splitText([text], 0.1).train.flatMap((piece) => [
    ...tokenizer.encode(piece),
    tokenizer.eosId,
  ]);
  assert.deepEqual(targets, expected.slice(1, targets.length + 1));
  assert.ok(expected.length - 1 - targets.length < options.sequenceLength);
  const { tokens } = train.batch([0]);
  assert.deepEqual([...tokens], expected.slice(0, 32));
});

test("a batch across shards equals its samples one by one", () => {
  const train = source(buildDataSet(text, tokenizer, options).train);
  const indices = [0, 99, 100, train.sampleCount - 1, 100];
  const batch = train.batch(indices);
  const single = indices.map((index) => train.batch([index]));
  assert.deepEqual(
    [...batch.tokens],
    single.flatMap(({ tokens }) => [...tokens]),
  );
  assert.deepEqual(
    [...batch.targets],
    single.flatMap(({ targets }) => [...targets]),
  );
  for (const bad of [-1, train.sampleCount, 0.5, Number.NaN]) {
    assert.throws(() => train.batch([bad]), RangeError);
  }
});

test("bytes per token count the text of the held-out targets", () => {
  const set = buildDataSet(text, tokenizer, options);
  const heldOut = source(set.heldOut);
  const targets = [...heldOut.batches(64)].flatMap((batch) => [...batch.targets]);
  const words = targets.filter((id) => id !== tokenizer.eosId);
  const bytes = Buffer.byteLength(tokenizer.decode(words));
  assert.equal(set.heldOutBytesPerToken, bytes / targets.length);
});

test("building twice gives the same shards; a document cannot fake its end", () => {
  const first = buildDataSet([text, "a<|endoftext|>b".repeat(500)], tokenizer, options);
  const second = buildDataSet([text, "a<|endoftext|>b".repeat(500)], tokenizer, options);
  assert.deepEqual(first, second);
  const samples = source(first.train);
  const ids = [...samples.batches(64)].flatMap((batch) => [...batch.targets]);
  assert.ok(ids.filter((id) => id === tokenizer.eosId).length < 40);
});

test("shards that are not what the run says are refused", () => {
  const [shard] = buildDataSet(text, tokenizer, options).train;
  assert.ok(shard);
  const flipped = shard.data.slice();
  flipped[5]! ^= 1;
  const cases = [
    { ...shard, data: flipped },
    { ...shard, data: shard.data.subarray(2) },
    { ...shard, sampleCount: shard.sampleCount + 1 },
    { ...shard, sampleCount: 0, data: new Uint8Array() },
  ];
  for (const bad of cases) {
    assert.throws(() => source([shard, bad]), { code: "COV_DATA_SHARD_MISMATCH" });
  }
  assert.throws(() => new SampleSource([shard], { sequenceLength: 32, vocabSize: 100 }), {
    code: "COV_DATA_SHARD_MISMATCH",
  });
});

test("a text without a single sample is refused", () => {
  assert.throws(() => buildDataSet("short", tokenizer, options), { code: "COV_DATA_TOO_SHORT" });
});
