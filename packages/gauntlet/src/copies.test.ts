import assert from "node:assert/strict";
import { test } from "node:test";
import { findCopies, type UpdateFingerprint } from "./copies.ts";

const CHUNK = 4096;
const KEPT = 64;

/** Small deterministic generator for test data. */
function generator(seed: number) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** An update over `chunks` chunks; `commonShare` of its positions come from a pool that all honest peers share. */
function honest(hotkey: string, block: number, seed: number, commonShare = 0.2) {
  const [own, pool] = [generator(seed), generator(7)];
  const positions: number[] = [];
  for (let chunk = 0; chunk < 60; chunk += 1) {
    const chosen = new Set<number>();
    for (let i = 0; i < KEPT; i += 1) {
      const common = Math.floor(pool() * CHUNK);
      if (own() < commonShare) chosen.add(common);
    }
    while (chosen.size < KEPT) chosen.add(Math.floor(own() * CHUNK));
    for (const position of [...chosen].sort((a, b) => a - b)) {
      positions.push(chunk * CHUNK + position);
    }
  }
  const values = positions.map(() => (own() < 0.5 ? -1 : 1) * (0.5 + own()));
  return update(hotkey, block, positions, values);
}

function update(hotkey: string, block: number, positions: number[], values: number[]) {
  return {
    hotkey,
    committedBlock: block,
    committedIndex: 0,
    indices: Uint32Array.from(positions),
    values: Float32Array.from(values),
  } satisfies UpdateFingerprint;
}

/** A copy whose values are changed and of whose positions a share is exchanged. */
function copyOf(
  victim: UpdateFingerprint,
  block: number,
  change: (value: number, random: () => number) => number,
  exchanged = 0,
) {
  const random = generator(99);
  const entries = new Map<number, number>();
  for (const [i, position] of victim.indices.entries()) {
    const moved = random() < exchanged;
    const at = moved ? Math.floor(random() * 60 * CHUNK) : position;
    entries.set(at, change(victim.values[i]!, random));
  }
  const sorted = [...entries].sort(([a], [b]) => a - b);
  const [positions, values] = [sorted.map(([p]) => p), sorted.map(([, v]) => v)];
  return update("copier", block, positions, values);
}

const peers = [honest("a", 10, 1), honest("b", 11, 2), honest("c", 12, 3), honest("d", 13, 4)];

test("honest peers that share a fifth of their positions are no copies", () => {
  const findings = findCopies(peers, 5);
  assert.equal(findings.size, 4);
  for (const finding of findings.values()) {
    assert.equal(finding.copy, false);
    assert.ok(finding.overlap < 0.3, `overlap ${finding.overlap}`);
  }
  assert.equal(findings.get("a")?.overlapWith, "", "the first commitment has nothing before it");
});

const DISGUISES: [string, (value: number, random: () => number) => number, number][] = [
  ["verbatim", (value) => value, 0],
  ["rescaled", (value) => value * 0.37, 0],
  ["sign-flipped", (value) => -value, 0],
  ["re-noised", (value, random) => value * (0.2 + 2 * random()), 0],
  ["with 30 % of the positions exchanged", (value) => value, 0.3],
  ["re-noised with 30 % exchanged", (value, random) => value * (0.5 + random()), 0.3],
  ["half exchanged", (value) => value, 0.5],
];

for (const [name, change, exchanged] of DISGUISES) {
  test(`a copy is found ${name}, and the earlier commitment is not blamed`, () => {
    const copier = copyOf(peers[1]!, 20, change, exchanged);
    const findings = findCopies([copier, ...peers], 77);
    assert.equal(findings.get("copier")?.copy, true);
    assert.equal(findings.get("copier")?.overlapWith, "b");
    for (const { hotkey } of peers) assert.equal(findings.get(hotkey)?.copy, false, hotkey);
  });
}

test("whoever commits first is the author, whatever the order of arrival", () => {
  const copier = { ...copyOf(peers[1]!, 10, (value) => value), committedIndex: 1 };
  const early = findCopies([peers[1]!, copier], 3);
  assert.equal(early.get("b")?.copy, true, "b committed at block 11, the other at block 10");
  assert.equal(early.get("copier")?.copy, false);
});

test("the sketch finds a copy in an update far larger than itself", () => {
  const rules = { overlapMax: 0.4, similarityMax: 0.5, sketchSize: 128 };
  const copier = copyOf(peers[0]!, 30, (value) => value * 2, 0.2);
  for (let seed = 0; seed < 20; seed += 1) {
    const findings = findCopies([...peers, copier], seed * 7919, rules);
    assert.equal(findings.get("copier")?.overlapWith, "a", `seed ${seed}`);
  }
});

test("empty updates compare without dividing by zero", () => {
  const empty = update("empty", 1, [], []);
  const other = update("other", 2, [], []);
  assert.equal(findCopies([empty, other], 1).get("other")?.copy, false);
});
