import { merkleRoot } from "@covenant/contracts";
import { u32Bytes, u64Bytes, utf8 } from "./bytes.ts";
import { type PermutationKey, permutationKey, permute } from "./permutation.ts";

/** What the assignment of a run depends on. */
export type AssignmentRules = {
  /** The run's seed. */
  seed: bigint;
  /** Number of training samples, all shards in order. */
  sampleCount: number;
  /** Samples one peer trains on in one round: inner steps x batch size. */
  samplesPerRound: number;
};

/** Who asks: the ledger gives every registered hotkey its own uid, which makes lanes disjoint. */
export type AssignedPeer = { uid: number; hotkey: string };

/**
 * The samples a peer trains on in a round, in training order.
 *
 * The round's permutation of all samples is cut into lanes of `samplesPerRound`; uid u owns lane u. Two uids below the
 * number of lanes never share a sample. Beyond that there are not enough samples for everyone: uid u then uses layer
 * floor(u / lanes), an independent permutation, disjoint within the layer. The order within the lane is keyed by the
 * hotkey. Nobody needs to know who else takes part, and nobody can choose: uid and hotkey are on the ledger.
 */
export function assignedSamples(
  rules: AssignmentRules,
  round: number,
  peer: AssignedPeer,
): Uint32Array {
  const { sampleCount, samplesPerRound } = rules;
  const lanes = Math.max(1, Math.floor(sampleCount / samplesPerRound));
  const layer = Math.floor(peer.uid / lanes);
  const first = (peer.uid % lanes) * samplesPerRound;
  const order = permutationKey(
    "covenant.assignment.order.v1",
    u64Bytes(rules.seed),
    u32Bytes(round),
    utf8(peer.hotkey),
  );
  const keys = new Map<number, PermutationKey>();
  const samples = new Uint32Array(samplesPerRound);
  for (let step = 0; step < samplesPerRound; step += 1) {
    // With fewer samples than one peer's round needs, the lane wraps into further permutations of all samples.
    const position = first + permute(order, samplesPerRound, step);
    const wrap = Math.floor(position / sampleCount);
    const key = keys.get(wrap) ?? roundKey(rules, round, layer, wrap);
    keys.set(wrap, key);
    samples[step] = permute(key, sampleCount, position % sampleCount);
  }
  return samples;
}

function roundKey(
  rules: AssignmentRules,
  round: number,
  layer: number,
  wrap: number,
): PermutationKey {
  return permutationKey(
    "covenant.assignment.v1",
    u64Bytes(rules.seed),
    u32Bytes(round),
    u32Bytes(layer),
    u32Bytes(wrap),
  );
}

/**
 * Draws `count` distinct samples of `from`, keyed by 32 bytes that nobody knew while the peers trained.
 * Returns all of them, shuffled, when there are fewer.
 */
export function drawSamples(from: Uint32Array, count: number, seed: Uint8Array): Uint32Array {
  const key = permutationKey("covenant.evaluation.assigned.v1", seed);
  const distinct = [...new Set(from)];
  const drawn = new Uint32Array(Math.min(count, distinct.length));
  for (let index = 0; index < drawn.length; index += 1) {
    drawn[index] = distinct[permute(key, distinct.length, index)]!;
  }
  return drawn;
}

/**
 * Draws `count` distinct samples that are in none of the `taken` lists, keyed by 32 unpredictable bytes: what the peers
 * of this round were not given. Returns fewer when fewer are left.
 */
export function unassignedSamples(
  sampleCount: number,
  taken: readonly Uint32Array[],
  count: number,
  seed: Uint8Array,
): Uint32Array {
  const excluded = new Set<number>();
  for (const list of taken) for (const sample of list) excluded.add(sample);
  const key = permutationKey("covenant.evaluation.unassigned.v1", seed);
  const drawn: number[] = [];
  for (let index = 0; index < sampleCount && drawn.length < count; index += 1) {
    const sample = permute(key, sampleCount, index);
    if (!excluded.has(sample)) drawn.push(sample);
  }
  return Uint32Array.from(drawn);
}

/** Merkle root over the sample indices in training order, each as 4 little-endian bytes. */
export function sampleCommitment(samples: Uint32Array): Uint8Array {
  return merkleRoot(Array.from(samples, u32Bytes));
}
