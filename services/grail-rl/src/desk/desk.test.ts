import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { sha256 } from "@covenant/contracts";
import {
  CommitGroupRequestSchema,
  GroupVerdictSchema,
  SubmitGroupsRequestSchema,
} from "@covenant/contracts/grail";
import { buildContract } from "@covenant/grail";
import { hasCode } from "@covenant/runtime";
import { temporaryDirectory } from "@covenant/runtime/testing";
import { Store } from "../state/store.ts";
import { Desk } from "./desk.ts";

const contract = buildContract({
  contractId: "run-v0-c0",
  runId: "run",
  policyVersion: 0,
  checkpointRoot: sha256(Uint8Array.of(1)),
  environment: "arithmetic@1",
  sampling: { temperature: 1, topK: 0, topP: 1, maxNewTokens: 4, stopTokenIds: [0] },
  groupSize: 2,
  beaconBlock: 1,
  beacon: sha256(Uint8Array.of(2)),
  deadlineBlock: 100,
});
const rules = { generateBlocks: 5, openBlocks: 5, challengeDelayBlocks: 1, outstandingMax: 2 };
const refusedWith = (code: Parameters<typeof hasCode>[1]) => (error: unknown) =>
  hasCode(error, code);

async function openDesk(path: string) {
  const ledger = { head: 10, headBlock: async () => ledger.head };
  const store = await Store.open(path);
  const desk = new Desk(rules, { store, ledger });
  await desk.open({ jobId: "job", contract, slots: 3 });
  return { desk, store, ledger };
}

test("a group goes through the desk once, however often its messages are delivered", async (t) => {
  const { desk, store, ledger } = await openDesk(`${await temporaryDirectory(t)}/desk.sqlite`);
  const work = await desk.take("alice", 1);
  const { groupId } = work!.assignments[0]!;
  assert.deepEqual((await desk.take("alice", 1))!.assignments[0]!.groupId, groupId);
  const commit = create(CommitGroupRequestSchema, { groupId, contractId: contract.contractId });
  assert.equal(await desk.commit("alice", commit), 11);
  ledger.head = 12;
  assert.equal(await desk.commit("alice", commit), 11);
  const changed = create(CommitGroupRequestSchema, { groupId, contractId: "other" });
  await assert.rejects(desk.commit("alice", changed), refusedWith("COV_GROUP_PHASE"));
  const openings = create(SubmitGroupsRequestSchema, { groupId });
  await assert.rejects(desk.submit("mallory", openings), refusedWith("COV_GROUP_UNKNOWN"));
  await desk.submit("alice", openings);
  await desk.submit("alice", openings);
  const waiting = desk.verdict("alice", groupId, AbortSignal.timeout(10_000));
  const verdict = create(GroupVerdictSchema, { groupId, hotkey: "alice", accepted: true });
  await desk.settle([{ verdict, reason: "verified" }]);
  assert.equal((await waiting).accepted, true);
  assert.deepEqual(await store.tally("job"), {
    accepted: 1,
    rejected: {},
    workers: { alice: { accepted: 1, rejected: {} } },
  });
  await store.close();
});

test("what was acknowledged is there after a restart", async (t) => {
  const path = `${await temporaryDirectory(t)}/desk.sqlite`;
  const first = await openDesk(path);
  const work = await first.desk.take("alice", 2);
  const [one, two] = work!.assignments;
  const commit = create(CommitGroupRequestSchema, { groupId: one!.groupId });
  await first.desk.commit("alice", commit);
  await first.store.close();
  const { desk, store } = await openDesk(path);
  const phases = desk.groups().map((group) => [group.groupId, group.phase]);
  assert.deepEqual(phases, [
    [one!.groupId, "committed"],
    [two!.groupId, "assigned"],
  ]);
  assert.equal(await desk.commit("alice", commit), 11);
  await store.close();
});

test("a vanished worker's slots go to the next one and its late messages are refused", async (t) => {
  const { desk, store, ledger } = await openDesk(`${await temporaryDirectory(t)}/desk.sqlite`);
  const lost = (await desk.take("alice", 1))!.assignments[0]!;
  ledger.head = 16;
  const taken = (await desk.take("bob", 1))!.assignments[0]!;
  assert.equal(taken.environmentSeed, lost.environmentSeed);
  assert.equal(taken.firstRolloutIndex, lost.firstRolloutIndex);
  assert.notEqual(taken.groupId, lost.groupId);
  const late = create(CommitGroupRequestSchema, { groupId: lost.groupId });
  await assert.rejects(desk.commit("alice", late), refusedWith("COV_GROUP_LATE"));
  const signal = AbortSignal.timeout(10_000);
  await assert.rejects(desk.verdict("alice", lost.groupId, signal), refusedWith("COV_GROUP_LATE"));
  await assert.rejects(
    desk.verdict("mallory", taken.groupId, signal),
    refusedWith("COV_GROUP_UNKNOWN"),
  );
  ledger.head = 101;
  assert.equal(await desk.take("bob", 1), undefined);
  await store.close();
});

test("a rejected worker is on probation until something of it is accepted", async (t) => {
  const { desk, store } = await openDesk(`${await temporaryDirectory(t)}/desk.sqlite`);
  const { groupId } = (await desk.take("mallory", 1))!.assignments[0]!;
  const verdict = create(GroupVerdictSchema, { groupId, hotkey: "mallory", accepted: false });
  await desk.settle([{ verdict, reason: "sampling_mismatch" }]);
  assert.equal(await store.isOnProbation("job", "mallory"), true);
  assert.equal(await store.isOnProbation("job", "alice"), false);
  assert.deepEqual((await desk.take("mallory", 1))!.assignments, []);
  assert.deepEqual((await store.tally("job")).rejected, { sampling_mismatch: 1 });
  await store.close();
});
