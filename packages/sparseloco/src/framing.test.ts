import assert from "node:assert/strict";
import { test } from "node:test";
import { clone } from "@bufbuild/protobuf";
import { sha256 } from "@covenant/contracts";
import { SparseUpdateSchema } from "@covenant/contracts/templar";
import fc from "fast-check";
import { assignedSamples } from "./assignment.ts";
import { BODY_CHUNK_BYTES, framePayload, parsePayload } from "./framing.ts";
import { buildHeader, checkHeader, type HeaderExpectation } from "./header.ts";
import { assignmentRules } from "./run-config.ts";
import { testHotkey, testRun } from "./test-run.ts";

const LIMIT = 8 * BODY_CHUNK_BYTES;
const peer = testHotkey(7);

function expectation(): HeaderExpectation {
  const run = testRun();
  const samples = assignedSamples(assignmentRules(run), 3, { uid: 2, hotkey: peer.address });
  const [baseRoot, tensorTableRoot] = [sha256(new Uint8Array(1)), sha256(new Uint8Array(2))];
  return { run, round: 3, baseRoot, tensorTableRoot, samples };
}

const expected = expectation();
const body = Uint8Array.from({ length: 3000 }, (_, i) => (i * 31) & 255);
const payload = framePayload(buildHeader(expected, body, peer), body);

test("a framed payload comes apart again and its header holds", () => {
  const parsed = parsePayload(payload, LIMIT);
  assert.ok(parsed.ok);
  assert.deepEqual(Buffer.from(parsed.value.body), Buffer.from(body));
  assert.equal(checkHeader(parsed.value.header, expected, peer.address), undefined);
});

test("bodies of several chunks carry one hash per chunk", () => {
  const large = new Uint8Array(2 * BODY_CHUNK_BYTES + 5).fill(3);
  const header = buildHeader(expected, large, peer);
  assert.equal(header.bodySha256.length, 3);
  const framed = framePayload(header, large);
  assert.ok(parsePayload(framed, LIMIT).ok);
  framed[framed.length - 1]! ^= 1;
  const damaged = parsePayload(framed, LIMIT);
  assert.ok(!damaged.ok && damaged.problem.code === "HASH_MISMATCH");
  assert.match(damaged.ok ? "" : damaged.problem.detail, /chunk 2/);
});

test("every flipped byte and every cut is refused, never thrown", () => {
  fc.assert(
    fc.property(fc.nat(payload.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const damaged = payload.slice();
      damaged[at]! ^= mask;
      const parsed = parsePayload(damaged, LIMIT);
      const ok =
        parsed.ok && checkHeader(parsed.value.header, expected, peer.address) === undefined;
      assert.ok(!ok, `byte ${at} flipped by ${mask} went unnoticed`);
      assert.ok(!parsePayload(payload.subarray(0, at), LIMIT).ok, `cut at ${at}`);
    }),
    { numRuns: 300 },
  );
});

test("random bytes are refused, never thrown", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      assert.ok(!parsePayload(bytes, LIMIT).ok);
    }),
  );
});

test("claimed lengths are checked before anything is read", () => {
  const huge = new Uint8Array(8).fill(255);
  const parsed = parsePayload(huge, LIMIT);
  assert.ok(!parsed.ok && parsed.problem.code === "TOO_LARGE");
  const long = parsePayload(payload, 100);
  assert.ok(!long.ok && long.problem.code === "TOO_LARGE");
});

test("an unknown field in the header makes it non-canonical", () => {
  const header = payload.slice(4, 4 + new DataView(payload.buffer).getUint32(0, true));
  const extended = new Uint8Array(payload.length + 2);
  new DataView(extended.buffer).setUint32(0, header.length + 2, true);
  extended.set(header, 4);
  extended.set([0xf8, 0x01], 4 + header.length);
  const parsed = parsePayload(extended, LIMIT);
  assert.ok(!parsed.ok);
});

test("each field of the header is bound to its round", () => {
  const header = buildHeader(expected, body, peer);
  const changes: [string, (copy: typeof header) => void][] = [
    [
      "WRONG_RUN",
      (copy) => {
        copy.runId = "other";
      },
    ],
    [
      "WRONG_ROUND",
      (copy) => {
        copy.round = 4;
      },
    ],
    [
      "WRONG_BASE",
      (copy) => {
        copy.baseRoot = sha256(body);
      },
    ],
    [
      "WRONG_TABLE",
      (copy) => {
        copy.tensorTableRoot = sha256(body);
      },
    ],
    [
      "WRONG_CODEC",
      (copy) => {
        copy.codec = "zip";
      },
    ],
    [
      "WRONG_RULE",
      (copy) => {
        copy.rule = 2;
      },
    ],
    [
      "WRONG_WORK",
      (copy) => {
        copy.innerSteps = 1;
      },
    ],
    [
      "WRONG_SAMPLES",
      (copy) => {
        copy.sampleCommitment = sha256(body);
      },
    ],
    [
      "BAD_SIGNATURE",
      (copy) => {
        copy.bodyBytes = 1n;
      },
    ],
  ];
  for (const [code, change] of changes) {
    const copy = clone(SparseUpdateSchema, header);
    change(copy);
    assert.equal(checkHeader(copy, expected, peer.address)?.code, code);
  }
  assert.equal(checkHeader(header, expected, testHotkey(8).address)?.code, "BAD_SIGNATURE");
});
