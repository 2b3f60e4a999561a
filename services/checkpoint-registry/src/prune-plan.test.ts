import assert from "node:assert/strict";
import { test } from "node:test";
import { CheckpointKind, CheckpointStage } from "@covenant/contracts/registry";
import fc from "fast-check";
import { type PruneCandidate, planPrune } from "./prune-plan.ts";

const { FULL, DELTA } = CheckpointKind;
const { PRETRAIN, POLICY, RELEASE } = CheckpointStage;
const row = (sequence: number, changes: Partial<PruneCandidate> = {}): PruneCandidate => ({
  root: `r${sequence}`,
  parentRoot: sequence > 1 ? `r${sequence - 1}` : "",
  kind: FULL,
  stage: PRETRAIN,
  sequence,
  pinned: false,
  ...changes,
});
const removed = (rows: PruneCandidate[], keepNewest: number): string[] =>
  planPrune(rows, keepNewest).map(({ root }) => root);

test("keeps the newest of each stage, the pinned and the released", () => {
  const rows = [
    row(1),
    row(2, { pinned: true }),
    row(3),
    row(4, { stage: RELEASE }),
    row(5),
    row(6, { stage: POLICY }),
    row(7, { stage: POLICY }),
  ];
  assert.deepEqual(removed(rows, 1), ["r1", "r3", "r6"]);
  assert.deepEqual(removed(rows, 5), []);
});

test("a full checkpoint does not hold its parent; a delta holds its whole chain", () => {
  assert.deepEqual(removed([row(1), row(2), row(3)], 1), ["r1", "r2"]);
  const chain = [row(1), row(2), row(3, { kind: DELTA }), row(4, { kind: DELTA }), row(5)];
  assert.deepEqual(removed(chain, 2), ["r1"]);
});

test("whatever is kept can be rebuilt, even when parents form a circle", () => {
  const candidate = fc.record({
    parent: fc.nat({ max: 8 }),
    kind: fc.constantFrom(FULL, DELTA),
    stage: fc.constantFrom(PRETRAIN, POLICY, RELEASE),
    pinned: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(candidate, { maxLength: 9 }), fc.nat({ max: 3 }), (items, keep) => {
      const rows = items.map(({ parent, ...rest }, i) =>
        row(i, { ...rest, parentRoot: `r${parent}` }),
      );
      const gone = new Set(removed(rows, keep));
      for (const { root, kind, parentRoot, pinned, stage } of rows) {
        if (gone.has(root)) assert.ok(!pinned && stage !== RELEASE);
        else if (kind === DELTA) assert.ok(!gone.has(parentRoot));
      }
    }),
  );
});
