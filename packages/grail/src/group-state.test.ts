import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  type AssignmentRules,
  assignSlots,
  commitGroup,
  expireGroups,
  type GroupState,
  holdsSlot,
  submitGroup,
} from "./index.ts";

const rules: AssignmentRules = {
  slots: 6,
  generateBlocks: 5,
  openBlocks: 5,
  challengeDelayBlocks: 1,
  outstandingMax: 3,
};

function give(
  groups: GroupState[],
  hotkey: string,
  headBlock: number,
  capacity = 64,
): GroupState[] {
  const slots = assignSlots(groups, { hotkey, capacity, headBlock }, rules);
  return slots.map(({ slot, attempt, deadlineBlock }) => ({
    groupId: `g${slot}-${attempt}`,
    slot,
    hotkey,
    phase: "assigned",
    deadlineBlock,
    committedAtBlock: 0,
    challengeBlock: 0,
  }));
}

test("a group goes from assignment to submission, each step in its time", () => {
  const [group] = give([], "alice", 10);
  const committed = commitGroup(group!, { hotkey: "alice", headBlock: 12 }, rules) as GroupState;
  assert.equal(committed.challengeBlock, 13);
  assert.equal(submitGroup(committed, { hotkey: "alice", headBlock: 12 }), "too_early");
  assert.equal(submitGroup(committed, { hotkey: "mallory", headBlock: 13 }), "not_assigned");
  assert.equal(submitGroup(committed, { hotkey: "alice", headBlock: 19 }), "too_late");
  const submitted = submitGroup(committed, { hotkey: "alice", headBlock: 13 }) as GroupState;
  assert.equal(submitted.phase, "submitted");
  assert.equal(submitGroup(submitted, { hotkey: "alice", headBlock: 13 }), "wrong_phase");
});

test("a commitment after the deadline or by somebody else is refused", () => {
  const [group] = give([], "alice", 10);
  assert.equal(commitGroup(group!, { hotkey: "alice", headBlock: 16 }, rules), "too_late");
  assert.equal(commitGroup(group!, { hotkey: "mallory", headBlock: 11 }, rules), "not_assigned");
});

test("what ran out of time is given to somebody else, under the same slot and a new attempt", () => {
  const groups = give([], "alice", 10);
  assert.equal(expireGroups(groups, 15).length, 0);
  const expired = expireGroups(groups, 16);
  assert.equal(expired.length, groups.length);
  const again = give(expired, "bob", 16);
  assert.deepEqual(
    again.map((group) => group.groupId),
    ["g0-1", "g1-1", "g2-1"],
  );
});

test("a worker with a rejected group gets nothing more from the contract", () => {
  const [first, ...rest] = give([], "mallory", 10);
  const groups = [{ ...first!, phase: "rejected" as const }, ...rest];
  assert.deepEqual(give(groups, "mallory", 11), []);
  assert.equal(give(groups, "alice", 11)[0]!.groupId, "g0-1");
});

test("no slot is ever held twice and no worker has more than its share in work", () => {
  const step = fc.record({
    worker: fc.constantFrom("a", "b", "c"),
    capacity: fc.integer({ min: 0, max: 9 }),
    block: fc.integer({ min: 0, max: 4 }),
    finish: fc.constantFrom("accepted" as const, "rejected" as const, "none" as const),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let groups: GroupState[] = [];
      let head = 0;
      for (const { worker, capacity, block, finish } of steps) {
        head += block;
        const expired = new Map(expireGroups(groups, head).map((group) => [group.groupId, group]));
        groups = groups.map((group) => expired.get(group.groupId) ?? group);
        groups.push(...give(groups, worker, head, capacity));
        const at = groups.findIndex((group) => group.phase === "assigned");
        if (finish !== "none" && at >= 0) groups[at] = { ...groups[at]!, phase: finish };
        const held = groups.filter(holdsSlot).map((group) => group.slot);
        assert.equal(new Set(held).size, held.length);
        assert.equal(new Set(groups.map((group) => group.groupId)).size, groups.length);
        for (const name of ["a", "b", "c"]) {
          const working = groups.filter((g) => g.hotkey === name && g.phase === "assigned");
          assert.ok(working.length <= rules.outstandingMax);
        }
      }
    }),
  );
});
