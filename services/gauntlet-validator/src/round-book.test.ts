import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import {
  AnnounceUpdateRequestSchema,
  ExplainScoreResponseSchema,
  RoundManifestSchema,
  SignedManifestSchema,
  VerdictReason,
  VerdictSchema,
} from "@covenant/contracts/gauntlet";
import { applyRound, initialGauntletState } from "@covenant/gauntlet";
import { openRound, type RoundRecord } from "@covenant/sparseloco";
import { openValidatorDatabase } from "./database.ts";
import { RoundBook } from "./round-book.ts";

const rules = {
  blocksPerWindow: 10,
  publishBlocks: 1,
  scoringBlocks: 10,
  settleBlocks: 10,
  minimumPeers: 1,
};

/** Runs the work on a book that can be closed and opened again on the same file. */
async function withBook(
  work: (book: RoundBook, reopen: () => Promise<RoundBook>) => Promise<void>,
) {
  const directory = await mkdtemp(path.join(tmpdir(), "covenant-book-"));
  let database = openValidatorDatabase(path.join(directory, "v.sqlite"));
  const reopen = async () => {
    await database.destroy();
    database = openValidatorDatabase(path.join(directory, "v.sqlite"));
    return new RoundBook({ database });
  };
  try {
    await work(new RoundBook({ database }), reopen);
  } finally {
    await database.destroy();
    await rm(directory, { recursive: true });
  }
}

const announcementOf = (record: RoundRecord, hotkey: string, committedBlock: number) => ({
  announced: { hotkey, committedBlock, committedIndex: 0 },
  request: create(AnnounceUpdateRequestSchema, { bucket: hotkey, key: `updates/${record.round}` }),
});

const manifestOf = (round: number, runId: string) => create(RoundManifestSchema, { runId, round });

test("rounds and announcements survive a restart, in the order of the ledger", async () => {
  await withBook(async (book, reopen) => {
    assert.equal(await book.newestRound(), -1);
    const record = openRound(rules, 0, 5);
    await book.openRound(record, "trace");
    await book.saveAnnouncement(record, announcementOf(record, "5B", 9), 12);
    await book.saveAnnouncement(record, announcementOf(record, "5A", 7), 13);
    await book.saveAnnouncement(record, announcementOf(record, "5B", 99), 14);
    const again = await reopen();
    const announcements = await again.announcements(0);
    assert.deepEqual(
      announcements.map(({ announced }) => [announced.hotkey, announced.committedBlock]),
      [
        ["5A", 7],
        ["5B", 9],
      ],
    );
    assert.equal(announcements[1]!.acceptedBlock, 12, "the first announcement stays");
    assert.deepEqual((await again.round(0))!.record, record);
    assert.equal(await again.newestRound(), 0);
    assert.deepEqual(await again.announcers(0, 0), new Set(["5A", "5B"]));
    assert.equal(await again.round(1), undefined);
  });
});

test("a round is proposed once: manifest, bundles and scores together or not at all", async () => {
  await withBook(async (book, reopen) => {
    const record = openRound(rules, 0, 5);
    await book.openRound(record, "");
    const reason = VerdictReason.ACCEPTED;
    const verdict = create(VerdictSchema, { hotkey: "5A", reason });
    const bundles = [create(ExplainScoreResponseSchema, { verdict })];
    const result = { hotkey: "5A", reason, explanation: "good", comparableImprovement: 1 };
    const gauntlet = applyRound(initialGauntletState(), 0, [result]);
    await book.propose({ record, manifest: manifestOf(0, "a"), bundles, gauntlet });
    const second = { record, manifest: manifestOf(0, "b"), bundles, gauntlet };
    await assert.rejects(book.propose(second), /proposed already/);
    const again = await reopen();
    assert.equal((await again.round(0))!.manifest!.runId, "a");
    assert.deepEqual(await again.gauntlet(), gauntlet);
    assert.equal((await again.bundle(0, "5A"))!.verdict!.hotkey, "5A");
    assert.equal(await again.bundle(0, "5B"), undefined);
  });
});

test("no restart makes a validator sign two manifests of one round", async () => {
  await withBook(async (book, reopen) => {
    const signedOf = (round: number, runId: string) =>
      create(SignedManifestSchema, { manifest: manifestOf(round, runId) });
    assert.equal(await book.claimSignature(signedOf(4, "a")), true);
    assert.equal(await book.claimSignature(signedOf(4, "a")), true, "the same again");
    assert.equal(await book.claimSignature(signedOf(4, "b")), false);
    const again = await reopen();
    assert.equal(await again.claimSignature(signedOf(4, "b")), false);
    assert.equal(await again.claimSignature(signedOf(5, "b")), true);
    assert.equal((await again.claimed(4))!.manifest!.runId, "a");
    assert.equal(await again.claimed(6), undefined);
  });
});

test("signed manifests, losses, roots, checkpoints and facts are kept", async () => {
  await withBook(async (book, reopen) => {
    const record = openRound(rules, 2, 5);
    await book.openRound(record, "");
    const signed = create(SignedManifestSchema, { manifest: manifestOf(2, "a") });
    await book.saveSigned(record, signed);
    await book.saveHeldOutLoss(2, 3.25);
    await book.saveApplied(2, "5A", new Uint8Array(32).fill(1));
    await book.saveApplied(2, "5A", new Uint8Array(32).fill(2));
    await book.saveCheckpoint(2, { createdAtMs: 17, parent: "ab" });
    await book.saveFact("x", "1");
    await book.saveFact("x", "2");
    const again = await reopen();
    const stored = (await again.round(2))!;
    assert.equal(stored.signed!.manifest!.round, 2);
    assert.equal(stored.heldOutLoss, 3.25);
    assert.deepEqual(await again.appliedRoots(2), { "5A": new Uint8Array(32).fill(2) });
    assert.deepEqual(await again.checkpoint(2), { createdAtMs: 17, parent: "ab" });
    assert.equal(await again.fact("x"), "2");
  });
});
