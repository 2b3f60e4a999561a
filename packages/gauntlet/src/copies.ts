/** A decoded update as copy detection sees it. */
export type UpdateFingerprint = {
  hotkey: string;
  /** Position of the commitment on the ledger: who committed later is the offender. */
  committedBlock: number;
  committedIndex: number;
  /** Flat positions, ascending. */
  indices: Uint32Array;
  /** Values at the positions. */
  values: Float32Array;
};

/** Thresholds of copy detection. */
export type CopyRules = {
  /** Share of common positions from which the later of two updates is a copy, whatever its values are. */
  overlapMax: number;
  /** Cosine similarity of two updates from which the later one is a copy, even where positions were exchanged. */
  similarityMax: number;
  /** Positions per update that enter the sketch. */
  sketchSize: number;
};

/** Defaults; docs/reference/gauntlet.md has the measured overlap of honest peers they keep a distance from. */
export const COPY_RULES: CopyRules = { overlapMax: 0.4, similarityMax: 0.5, sketchSize: 4096 };

/** The nearest earlier update of one peer. */
export type CopyFinding = {
  /** Largest share of common positions with any earlier update. */
  overlap: number;
  overlapWith: string;
  /** Cosine similarity with that update, signs ignored (a flipped copy is a copy). */
  similarity: number;
  copy: boolean;
};

/**
 * Compares every update with all that were committed before it.
 *
 * A sketch (positions whose keyed hash is small: the same positions for everybody) feeds one inverted index over all
 * updates, so the work grows with what is shared and not with the number of pairs; only pairs whose sketch looks suspicious, and
 * each update's nearest one, are compared exactly. It works on positions: noise on the values, another scale or flipped signs do
 * not hide a copy. `seed` is drawn after the commitments, so nobody can choose positions that miss the sketch.
 */
export function findCopies(
  updates: readonly UpdateFingerprint[],
  seed: number,
  rules: CopyRules = COPY_RULES,
): Map<string, CopyFinding> {
  const ordered = [...updates].sort(byCommitment);
  const shared = sketchOverlaps(ordered, seed, rules.sketchSize);
  const findings = new Map<string, CopyFinding>();
  ordered.forEach((update, later) => {
    const row = shared[later]!;
    const nearest = row.reduce((best, count, at) => (count > (row[best] ?? 0) ? at : best), 0);
    const suspicious = row.flatMap((share, at) =>
      share >= rules.overlapMax / 2 || (at === nearest && later > 0) ? [at] : [],
    );
    const compared = suspicious.map((at) => compareWith(ordered[at]!, update, rules));
    const finding = compared.reduce<CopyFinding>(
      (worst, next) => (severity(next, rules) > severity(worst, rules) ? next : worst),
      { overlap: 0, overlapWith: "", similarity: 0, copy: false },
    );
    findings.set(update.hotkey, finding);
  });
  return findings;
}

function byCommitment(a: UpdateFingerprint, b: UpdateFingerprint): number {
  return (
    a.committedBlock - b.committedBlock ||
    a.committedIndex - b.committedIndex ||
    (a.hotkey < b.hotkey ? -1 : 1)
  );
}

/** Row l holds, for every earlier update e, the estimated share of positions that l and e have in common. */
function sketchOverlaps(
  ordered: readonly UpdateFingerprint[],
  seed: number,
  sketchSize: number,
): number[][] {
  const owners = new Map<number, number[]>();
  const sizes = new Array<number>(ordered.length).fill(0);
  const rows = ordered.map((_, index) => new Array<number>(index).fill(0));
  const largest = ordered.reduce((max, update) => Math.max(max, update.indices.length), 1);
  const threshold = Math.min(1, sketchSize / largest) * 2 ** 32;
  ordered.forEach((update, at) => {
    for (const position of update.indices) {
      if (mix(position, seed) >= threshold) continue;
      sizes[at]! += 1;
      const holders = owners.get(position);
      if (holders === undefined) owners.set(position, [at]);
      else {
        for (const earlier of holders) rows[at]![earlier]! += 1;
        holders.push(at);
      }
    }
  });
  return rows.map((row, later) =>
    row.map((count, earlier) => count / Math.max(1, Math.min(sizes[later]!, sizes[earlier]!))),
  );
}

/** A 32-bit finaliser (MurmurHash3's) over position and seed. */
function mix(position: number, seed: number): number {
  let x = (position ^ seed) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** How near a finding is to (or beyond) being called a copy: 1 is the threshold. */
function severity(finding: CopyFinding, rules: CopyRules): number {
  return Math.max(finding.overlap / rules.overlapMax, finding.similarity / rules.similarityMax);
}

/** Exact overlap (of the smaller set) and absolute cosine of two updates, by merging their sorted positions. */
function compareWith(
  earlier: UpdateFingerprint,
  update: UpdateFingerprint,
  rules: CopyRules,
): CopyFinding {
  let [i, j, common, product] = [0, 0, 0, 0];
  while (i < earlier.indices.length && j < update.indices.length) {
    const [left, right] = [earlier.indices[i]!, update.indices[j]!];
    if (left === right) {
      common += 1;
      product += earlier.values[i]! * update.values[j]!;
    }
    if (left <= right) i += 1;
    if (right <= left) j += 1;
  }
  const norms = norm(earlier.values) * norm(update.values);
  const overlap = common / Math.max(1, Math.min(earlier.indices.length, update.indices.length));
  const similarity = norms > 0 ? Math.abs(product) / norms : 0;
  const copy = overlap >= rules.overlapMax || similarity >= rules.similarityMax;
  return { overlap, overlapWith: earlier.hotkey, similarity, copy };
}

function norm(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum);
}
