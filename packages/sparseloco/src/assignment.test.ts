import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { assignedSamples, drawSamples, sampleCommitment, unassignedSamples } from "./assignment.ts";
import { permutationKey, permute } from "./permutation.ts";

const RULES = { seed: 42n, sampleCount: 4000, samplesPerRound: 160 };

test("the keyed permutation is a permutation of any domain", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 700 }), fc.string(), (size, label) => {
      const key = permutationKey(label);
      const images = new Set(Array.from({ length: size }, (_, i) => permute(key, size, i)));
      assert.equal(images.size, size);
      assert.ok([...images].every((image) => image >= 0 && image < size));
    }),
  );
});

test("different keys permute differently, and the image looks uniform", () => {
  const [a, b] = [permutationKey("a"), permutationKey("b")];
  const images = (key: readonly [number, number]) =>
    Array.from({ length: 1000 }, (_, i) => permute(key, 1000, i));
  const other = images(b);
  const equal = images(a).filter((image, i) => image === other[i]).length;
  assert.ok(equal < 15, `${equal} of 1000 images agree`);
  const lowerHalf = images(a)
    .slice(0, 500)
    .filter((image) => image < 500).length;
  assert.ok(Math.abs(lowerHalf - 250) < 60, `${lowerHalf} of 500 fall into the lower half`);
});

test("peers of one round never share a sample while there are lanes", () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.integer({ min: 0, max: 100_000 }),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 25 }),
      (seed, round, samplesPerRound, peers) => {
        const rules = { seed, sampleCount: samplesPerRound * 25 + 7, samplesPerRound };
        const seen = new Set<number>();
        for (let uid = 0; uid < peers; uid += 1) {
          for (const sample of assignedSamples(rules, round, { uid, hotkey: `5Peer${uid}` })) {
            assert.ok(sample < rules.sampleCount);
            assert.ok(!seen.has(sample), `sample ${sample} is assigned twice`);
            seen.add(sample);
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("rounds, hotkeys and seeds change what a peer trains on", () => {
  const peer = { uid: 3, hotkey: "5Alice" };
  const first = assignedSamples(RULES, 0, peer);
  assert.deepEqual(assignedSamples(RULES, 0, peer), first, "same question, same answer");
  assert.notDeepEqual(assignedSamples(RULES, 1, peer), first);
  assert.notDeepEqual(assignedSamples({ ...RULES, seed: 43n }, 0, peer), first);
  const other = assignedSamples(RULES, 0, { uid: 3, hotkey: "5Bob" });
  assert.notDeepEqual(other, first, "the hotkey keys the order");
  assert.deepEqual(new Set(other), new Set(first), "the lane belongs to the uid");
});

test("over many rounds a peer meets nearly all samples", () => {
  const met = new Set<number>();
  for (let round = 0; round < 150; round += 1) {
    for (const sample of assignedSamples(RULES, round, { uid: 1, hotkey: "5A" })) met.add(sample);
  }
  assert.ok(met.size > 0.99 * RULES.sampleCount, `${met.size} of ${RULES.sampleCount}`);
});

test("more peers than lanes use further permutations, fewer samples than one round wrap", () => {
  const crowded = assignedSamples(RULES, 0, { uid: 25, hotkey: "5Z" });
  assert.notDeepEqual(
    new Set(crowded),
    new Set(assignedSamples(RULES, 0, { uid: 0, hotkey: "5Z" })),
  );
  const scarce = { seed: 1n, sampleCount: 50, samplesPerRound: 160 };
  const samples = assignedSamples(scarce, 0, { uid: 2, hotkey: "5Z" });
  assert.equal(new Set(samples).size, 50, "three passes over all samples and a rest");
});

test("drawn samples come from the list, unassigned ones from nowhere in it", () => {
  const seed = new Uint8Array(32).fill(9);
  const taken = [0, 1, 2].map((uid) => assignedSamples(RULES, 5, { uid, hotkey: `5${uid}` }));
  const drawn = drawSamples(taken[0]!, 8, seed);
  assert.equal(new Set(drawn).size, 8);
  assert.ok(drawn.every((sample) => taken[0]!.includes(sample)));
  const others = unassignedSamples(RULES.sampleCount, taken, 8, seed);
  assert.equal(new Set(others).size, 8);
  assert.ok(others.every((sample) => taken.every((list) => !list.includes(sample))));
  assert.equal(unassignedSamples(4, [Uint32Array.of(0, 1, 3)], 8, seed).length, 1);
});

test("the sample commitment depends on order and content", () => {
  const a = sampleCommitment(Uint32Array.of(1, 2, 3));
  assert.notDeepEqual(sampleCommitment(Uint32Array.of(1, 3, 2)), a);
  assert.deepEqual(sampleCommitment(Uint32Array.of(1, 2, 3)), a);
});
