import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fromHex, toHex } from "@covenant/contracts";
import { assignedSamples, drawSamples, sampleCommitment } from "./assignment.ts";
import { updateCommitment } from "./commitment.ts";
import { framePayload, parsePayload } from "./framing.ts";
import { buildHeader } from "./header.ts";
import { assignmentRules, runConfigHash } from "./run-config.ts";
import { testHotkey, testRun } from "./test-run.ts";

/** What other implementations must compute alike; see the file's `about`. */
const vectors = JSON.parse(
  readFileSync(new URL("../../../test/vectors/sparseloco/v1.json", import.meta.url), "utf8"),
) as {
  assignments: {
    seed: string;
    sampleCount: number;
    samplesPerRound: number;
    round: number;
    uid: number;
    hotkey: string;
    samples: number[];
    commitment: string;
    drawn: number[];
  }[];
  runSha256: string;
  payload: { round: number; bodyHex: string; baseRoot: string; payloadHex: string };
  ledgerCommitment: { bucket: string; round: number; payloadSha256: string; fields: string[] };
};

test("assignments, commitments and drawn samples match the vectors", () => {
  assert.ok(vectors.assignments.length >= 4);
  for (const vector of vectors.assignments) {
    const { sampleCount, samplesPerRound, round, uid, hotkey } = vector;
    const rules = { seed: BigInt(vector.seed), sampleCount, samplesPerRound };
    const samples = assignedSamples(rules, round, { uid, hotkey });
    assert.deepEqual([...samples], vector.samples);
    assert.equal(toHex(sampleCommitment(samples)), vector.commitment);
    const drawn = drawSamples(samples, 4, new Uint8Array(32).fill(round));
    assert.deepEqual([...drawn], vector.drawn);
  }
});

test("run, payload and ledger commitment have the vectors' bytes", () => {
  const run = testRun();
  assert.equal(toHex(runConfigHash(run)), vectors.runSha256);
  const { round, bodyHex, baseRoot, payloadHex } = vectors.payload;
  const hotkey = testHotkey(7);
  const samples = assignedSamples(assignmentRules(run), round, { uid: 2, hotkey: hotkey.address });
  const root = fromHex(baseRoot);
  const expected = { run, round, baseRoot: root, tensorTableRoot: root, samples };
  const body = fromHex(bodyHex);
  const payload = framePayload(buildHeader(expected, body, hotkey), body);
  assert.equal(toHex(payload), payloadHex);
  assert.ok(parsePayload(fromHex(payloadHex), payload.length).ok);
  const { bucket, payloadSha256, fields } = vectors.ledgerCommitment;
  const committed = updateCommitment(
    bucket,
    vectors.ledgerCommitment.round,
    fromHex(payloadSha256),
  );
  assert.deepEqual(committed.map(toHex), fields);
});
