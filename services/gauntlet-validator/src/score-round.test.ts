import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { bytesEqual, sha256 } from "@covenant/contracts";
import { VerdictReason } from "@covenant/contracts/gauntlet";
import { reasonName, replayVerdict } from "@covenant/gauntlet";
import { decode, isPackedUpdate, packUpdate, stateRoot } from "@covenant/kernels";
import { sentForm } from "@covenant/runs";
import { openRound } from "@covenant/sparseloco";
import type { Announcement } from "./fetch-updates.ts";
import { proposeRound } from "./propose-round.ts";
import { type RoundScores, scoreRound } from "./score-round.ts";
import {
  announce,
  bodyOf,
  evaluatorOf,
  participantsOf,
  quickClock,
  type SmallRun,
  samplesOf,
  smallRun,
  testKey,
  trainedBody,
} from "./testing/small-run.ts";

const HONEST = 4;
const OPTIONS = { samplesPerSet: 8, samplesPerSetMax: 16, evaluationScale: 1 };
const { signal } = new AbortController();
let small: SmallRun;
let honest: Announcement[];

before(async () => {
  small = await smallRun();
  honest = [];
  for (let uid = 0; uid < HONEST; uid += 1) {
    // Two of them send their body as it is: both forms are taken.
    const body = await trainedBody(small, uid);
    const sent = uid < 2 ? await packed(body) : body;
    honest.push(await announce(small, uid, sent));
  }
});

after(() => small.model.close());

function packed(body: Uint8Array): Promise<Uint8Array> {
  return packUpdate(body, small.setup.tensors, { keepPerChunk: 64, mode: "2bit" });
}

async function score(announcements: Announcement[], missing: string[] = []): Promise<RoundScores> {
  const { setup, objects, parameters, baseRoot } = small;
  return scoreRound(
    {
      round: 0,
      baseRoot,
      parameters,
      announcements,
      missing,
      randomness: sha256(new Uint8Array([1])),
      signal,
    },
    OPTIONS,
    {
      setup,
      objects,
      participants: await participantsOf(8),
      clock: quickClock(),
      evaluator: evaluatorOf(small),
      fetchBudgetMs: 1000,
    },
  );
}

/** The verdict on one uid, by name. */
function verdictOn(scores: RoundScores, uid: number) {
  const { address } = testKey(10 + uid);
  const verdict = scores.bundles.find((bundle) => bundle.verdict!.hotkey === address)?.verdict;
  return verdict === undefined ? "none" : reasonName(verdict.reason);
}

test("honest updates are accepted and their bundles replay to the same verdicts", async () => {
  const scores = await score(honest);
  assert.equal(scores.accepted.length, HONEST);
  for (const bundle of scores.bundles) {
    assert.equal(bundle.verdict!.reason, VerdictReason.ACCEPTED, bundle.verdict!.explanation);
    assert.deepEqual(replayVerdict(bundle).differences, []);
    assert.ok(bundle.assignedSamples.length >= OPTIONS.samplesPerSet);
  }
});

test("the same round scores to the same bytes again", async () => {
  const [first, second] = [await score(honest), await score(honest)];
  assert.deepEqual(second.bundles, first.bundles);
  assert.deepEqual(second.results, first.results);
});

test("a copy, its disguise and noise do not contribute", async () => {
  const victim = honest[0]!;
  const { body } = (await score(honest)).accepted[0]!;
  const { indices, values } = await decode(body, small.setup.tensors, {
    keepPerChunk: 64,
    mode: "2bit",
  });
  const disguised = small.parameters.slice();
  for (const [i, at] of indices.entries()) disguised[at]! -= values[i]! * (i % 2 === 0 ? 0.7 : 1.2);
  const random = small.parameters.slice();
  let seed = 99;
  for (let i = 0; i < random.length; i += 1) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    random[i]! += (seed / 2 ** 32 - 0.5) * 0.06;
  }
  const scores = await score([
    ...honest,
    await announce(small, 4, body),
    await announce(small, 5, await bodyOf(small, disguised)),
    await announce(small, 6, await bodyOf(small, random)),
  ]);
  assert.equal(verdictOn(scores, 0), "ACCEPTED");
  assert.equal(verdictOn(scores, 4), "COPY");
  assert.equal(verdictOn(scores, 5), "COPY");
  assert.equal(verdictOn(scores, 6), "NO_IMPROVEMENT");
  const copy = scores.bundles.find(({ verdict }) => verdict!.hotkey === testKey(14).address);
  assert.equal(copy!.verdict!.overlapWith, victim.announced.hotkey);
  assert.equal(scores.accepted.length, HONEST);
});

test("what is judged is the body, in whichever form it was sent", async () => {
  const body = await trainedBody(small, 0);
  const { accepted } = await score(honest);
  assert.ok(accepted.every((update) => !isPackedUpdate(update.body)));
  assert.deepEqual(
    accepted.find(({ samples }) => samples[0] === samplesOf(small, 0)[0])?.body,
    body,
  );
  const again = await score([...honest, await announce(small, 4, body)]);
  assert.equal(verdictOn(again, 4), "COPY");
  const sent = await sentForm(small.setup, body);
  assert.ok(sent.length <= body.length && isPackedUpdate(sent) === sent.length < body.length);
});

test("every cheap check has its reason, and own faults are nobody else's", async () => {
  const { body } = (await score(honest)).accepted[0]!;
  const garbled = body.slice();
  garbled.fill(255, 0, 64);
  const replaced = await announce(small, 4, body);
  small.objects.objects.set("peer-4/updates/0", new Uint8Array(10));
  const gone = await announce(small, 5, body);
  small.objects.objects.delete("peer-5/updates/0");
  const unreachable = await announce(small, 6, body);
  small.objects.broken.add("peer-6");
  const wrongBase = await announce(small, 7, body, { baseRoot: sha256(body) });
  const [missing, unknown] = [testKey(99).address, await announce(small, 40, body)];
  const announcements = [...honest.slice(0, 3), replaced, gone, unreachable, wrongBase, unknown];
  const scores = await score(announcements, [missing]);
  small.objects.broken.clear();
  assert.equal(verdictOn(scores, 4), "HASH_MISMATCH");
  assert.equal(verdictOn(scores, 5), "MISSING");
  assert.equal(verdictOn(scores, 6), "VALIDATOR_FAULT");
  assert.equal(verdictOn(scores, 7), "WRONG_BASE");
  assert.equal(verdictOn(scores, 40), "NOT_REGISTERED");
  assert.equal(verdictOn(scores, 89), "MISSING");
  const malformed = await score([...honest, await announce(small, 4, garbled)]);
  assert.equal(verdictOn(malformed, 4), "MALFORMED");
  const damaged = await packed(body);
  damaged[damaged.length - 1]! ^= 1;
  const undone = await score([...honest, await announce(small, 4, damaged)]);
  assert.equal(verdictOn(undone, 4), "MALFORMED");
});

test("a proposal holds the accepted updates in order and the root they lead to", async () => {
  const { accepted } = await score(honest);
  const { setup, parameters, baseRoot } = small;
  const record = { ...openRound(RULES, 0, 10), closeBlock: 20 };
  const previousManifestSha256 = new Uint8Array();
  const input = { record, baseRoot, parameters, previousManifestSha256 };
  const proposal = await proposeRound(setup, { ...input, accepted, nullReason: "" });
  const { manifest } = proposal;
  assert.deepEqual(
    manifest.contributors.map(({ hotkey }) => hotkey),
    honest.map(({ announced }) => announced.hotkey),
  );
  assert.ok(!bytesEqual(manifest.postStateRoot, baseRoot));
  const root = await stateRoot(proposal.parameters, setup.tensors);
  assert.deepEqual(Buffer.from(manifest.postStateRoot), Buffer.from(root));
  assert.deepEqual(Buffer.from(manifest.mergedSha256), Buffer.from(sha256(proposal.merged)));
  const nothing = await proposeRound(setup, { ...input, accepted: [], nullReason: "nobody" });
  assert.deepEqual(nothing.manifest.postStateRoot, baseRoot);
  assert.equal(nothing.manifest.nullReason, "nobody");
});

const RULES = {
  blocksPerWindow: 10,
  publishBlocks: 1,
  scoringBlocks: 10,
  settleBlocks: 10,
  minimumPeers: 1,
};
