import assert from "node:assert/strict";
import { test } from "node:test";
import { clone, create } from "@bufbuild/protobuf";
import { hotkeyFromSeed, sha256, signMessage } from "@covenant/contracts";
import {
  ProofReason,
  ProofStatementSchema,
  type Receipt,
  ReceiptSchema,
} from "@covenant/contracts/grail";
import {
  buildReceipt,
  exactThresholds,
  fingerprintSeed,
  reasonName,
  verifyReceipt,
} from "./index.ts";
import {
  type ToyModel,
  toyContract,
  toyGenerate,
  toyReplay,
  toyVocabulary,
} from "./toy-model.fixture.ts";

const served: ToyModel = { weights: "served" };
const cheap: ToyModel = { weights: "cheap" };
const replica = hotkeyFromSeed(new Uint8Array(32).fill(3));
const checkpointRoot = sha256(new TextEncoder().encode("released"));
const beacon = sha256(new TextEncoder().encode("block 9"));
const context = { checkpointRoot, vocabularySize: toyVocabulary, thresholds: exactThresholds };

function answer(model: ToyModel, requestId = "request-1"): Receipt {
  const terms = {
    requestId,
    checkpointRoot,
    sampling: toyContract.sampling!,
    promptTokens: [2, 7, 1, 8],
    beaconBlock: 9,
    beacon,
    rolloutIndex: 0,
    model: "demo",
    issuedAtMs: 1_700_000_000_000,
  };
  const statement = create(ProofStatementSchema, {
    checkpointRoot,
    beacon,
    promptTokens: [2, 7, 1, 8],
  });
  const keyed = { ...toyContract, fingerprintSeed: fingerprintSeed(beacon, checkpointRoot) };
  return buildReceipt(terms, toyGenerate(model, keyed, statement), replica);
}

async function check(receipt: Receipt, more = {}) {
  const finding = await verifyReceipt(receipt, { ...context, ...more }, async (request, print) =>
    toyReplay(served, request, print),
  );
  return reasonName(finding.reason);
}

function resigned(change: (receipt: Receipt) => void): Receipt {
  const receipt = clone(ReceiptSchema, answer(served));
  change(receipt);
  receipt.signature = signMessage(ReceiptSchema, receipt, replica);
  return receipt;
}

test("a receipt of the served model is verified by anyone with the weights", async () => {
  assert.equal(await check(answer(served)), "verified");
  assert.equal(await check(answer(served), { hotkey: replica.address, beacon }), "verified");
});

test("an answer of a cheaper model is refused", async () => {
  assert.equal(await check(answer(cheap)), "sampling_mismatch");
});

test("a changed, foreign or unsigned receipt is refused", async () => {
  const changed = clone(ReceiptSchema, answer(served));
  changed.model = "another";
  assert.equal(await check(changed), "bad_signature");
  assert.equal(await check(answer(served), { hotkey: "5Foreign" }), "bad_signature");
  const unsigned = clone(ReceiptSchema, answer(served));
  delete unsigned.signature;
  assert.equal(await check(unsigned), "bad_signature");
});

test("a signed receipt about something else is refused by name", async () => {
  const cases: [ProofReason, (receipt: Receipt) => void][] = [
    [
      ProofReason.WRONG_CHECKPOINT,
      (r) => {
        r.commitment!.statement!.checkpointRoot[0]! ^= 1;
      },
    ],
    [
      ProofReason.SAMPLING_MISMATCH,
      (r) => {
        r.commitment!.statement!.promptTokens = [1];
      },
    ],
    [
      ProofReason.OPENING_MISMATCH,
      (r) => {
        r.openings.pop();
      },
    ],
    [
      ProofReason.OPENING_MISMATCH,
      (r) => {
        r.commitment!.recordRoot[0]! ^= 1;
      },
    ],
    [
      ProofReason.TERMINATION,
      (r) => {
        r.commitment!.completionTokens.pop();
      },
    ],
    [
      ProofReason.MALFORMED,
      (r) => {
        delete r.commitment;
      },
    ],
    [
      ProofReason.MALFORMED,
      (r) => {
        r.commitment!.statement!.sampling!.topP = 0;
      },
    ],
    [
      ProofReason.WRONG_SAMPLING,
      (r) => {
        r.commitment!.statement!.beacon = new Uint8Array(3);
      },
    ],
  ];
  for (const [reason, change] of cases) {
    assert.equal(await check(resigned(change)), reasonName(reason));
  }
  const other = { beacon: sha256(new Uint8Array(1)) };
  assert.equal(await check(answer(served), other), "wrong_sampling");
});
