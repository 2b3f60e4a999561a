import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { clone } from "@bufbuild/protobuf";
import {
  type AnnounceUpdateRequest,
  AnnounceUpdateRequestSchema,
} from "@covenant/contracts/gauntlet";
import { type Announced, updateCommitment } from "@covenant/sparseloco";
import { takeAnnouncement } from "./intake.ts";
import { announce, bodyOf, type SmallRun, smallRun, testKey } from "./testing/small-run.ts";

let small: SmallRun;
let request: AnnounceUpdateRequest;
const caller = testKey(10).address;

before(async () => {
  small = await smallRun();
  request = (await announce(small, 0, await bodyOf(small, small.parameters))).request;
});
after(() => small.model.close());

/** An intake over fakes: what is committed, what was announced before, what reaches the loop. */
function intake(fields: Uint8Array[] | undefined, known: AnnounceUpdateRequest[] = []) {
  const taken: Announced[] = [];
  const judge = {
    config: { ledger: { netuid: 1 } },
    setup: small.setup,
    ledger: {
      commitment: async () => (fields === undefined ? undefined : { fields, block: 7, index: 2 }),
    },
    book: {
      announcements: async () =>
        known.map((earlier) => ({
          announced: { hotkey: caller, committedBlock: 7, committedIndex: 2 },
          request: earlier,
          acceptedBlock: 8,
        })),
    },
  };
  const loop = {
    announce: async (_request: AnnounceUpdateRequest, announced: Announced) => {
      taken.push(announced);
      return 9;
    },
  };
  const take = (asked: AnnounceUpdateRequest, by: string | undefined = caller) =>
    takeAnnouncement(judge as never, loop as never, asked, by);
  return { take, taken };
}

const committed = () => updateCommitment(request.bucket, 0, request.payloadSha256);

test("a committed update is taken with its place on the ledger", async () => {
  const { take, taken } = intake(committed());
  assert.equal(await take(request), 9);
  assert.deepEqual(taken, [{ hotkey: caller, committedBlock: 7, committedIndex: 2 }]);
});

test("announcing the same again is answered without asking anybody", async () => {
  const { take, taken } = intake(undefined, [request]);
  assert.equal(await take(request), 8);
  assert.deepEqual(taken, []);
});

test("a second update for the round is refused", async () => {
  const { take } = intake(committed(), [request]);
  const other = clone(AnnounceUpdateRequestSchema, request);
  other.payloadSha256[0]! ^= 1;
  await assert.rejects(take(other), { code: "COV_UPDATE_REFUSED" });
});

test("without the commitment it may be tried again later", async () => {
  for (const fields of [undefined, updateCommitment("other", 0, request.payloadSha256)]) {
    const { take, taken } = intake(fields);
    await assert.rejects(take(request), { code: "COV_UPDATE_NOT_COMMITTED", retryable: true });
    assert.deepEqual(taken, []);
  }
});

test("nobody announces for others, for another run, or beyond the limits", async () => {
  const { take, taken } = intake(committed());
  const changed = (change: (copy: AnnounceUpdateRequest) => void) => {
    const copy = clone(AnnounceUpdateRequestSchema, request);
    change(copy);
    return copy;
  };
  const refusals = [
    take(request, testKey(11).address),
    take(request, ""),
    take(changed((copy) => Object.assign(copy.header!, { runId: "other" }))),
    take(changed((copy) => Object.assign(copy, { header: undefined }))),
    take(changed((copy) => Object.assign(copy, { payloadBytes: 1n << 40n }))),
    take(changed((copy) => Object.assign(copy, { payloadBytes: 0n }))),
    take(changed((copy) => Object.assign(copy, { payloadSha256: new Uint8Array(3) }))),
    take(changed((copy) => Object.assign(copy, { bucket: "" }))),
    take(changed((copy) => Object.assign(copy, { key: "k".repeat(500) }))),
  ];
  for (const refusal of refusals) await assert.rejects(refusal, { code: "COV_UPDATE_REFUSED" });
  assert.deepEqual(taken, []);
});
