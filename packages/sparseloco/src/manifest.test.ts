import assert from "node:assert/strict";
import { test } from "node:test";
import { clone, create } from "@bufbuild/protobuf";
import { sha256 } from "@covenant/contracts";
import {
  ContributorSchema,
  RoundManifestSchema,
  SignedManifestSchema,
} from "@covenant/contracts/gauntlet";
import { checkManifest, manifestHash, signManifest } from "./manifest.ts";
import { testHotkey } from "./test-run.ts";

const [v1, v2, stranger] = [testHotkey(21), testHotkey(22), testHotkey(23)];
const baseRoot = sha256(new Uint8Array([5]));
const contributor = create(ContributorSchema, { hotkey: "5Peer", weight: 1 });
const manifest = create(RoundManifestSchema, {
  runId: "test",
  round: 2,
  baseRoot,
  contributors: [contributor],
  rule: 1,
  outerLearningRate: 1,
});
const validators = new Map([
  [v1.address, 60n],
  [v2.address, 40n],
]);
const expected = {
  runId: "test",
  round: 2,
  baseRoot,
  validators,
  previousManifestSha256: undefined,
};

function signedBy(...keys: (typeof v1)[]) {
  const signatures = keys.map((key) => signManifest(manifest, key));
  return create(SignedManifestSchema, { manifest, signatures });
}

function codeOf(signed: ReturnType<typeof signedBy>, overrides = {}) {
  const checked = checkManifest(signed, { ...expected, ...overrides });
  return checked.ok ? "OK" : checked.problem.code;
}

test("more than half of the stake makes a manifest valid", () => {
  assert.equal(codeOf(signedBy(v1)), "OK");
  assert.equal(codeOf(signedBy(v1, v2)), "OK");
  assert.equal(codeOf(signedBy(v2)), "NO_QUORUM");
  assert.equal(codeOf(signedBy(v2, v2, v2)), "NO_QUORUM", "one signer counts once");
  assert.equal(codeOf(signedBy(stranger, v2)), "NO_QUORUM");
  assert.equal(codeOf(signedBy()), "NO_QUORUM");
  const half = new Map([
    [v1.address, 50n],
    [v2.address, 50n],
  ]);
  assert.equal(
    codeOf(signedBy(v1), { validators: half }),
    "NO_QUORUM",
    "half is not more than half",
  );
});

test("a signature covers every field", () => {
  const signed = signedBy(v1);
  const changed = clone(SignedManifestSchema, signed);
  changed.manifest!.outerLearningRate = 0.5;
  assert.equal(codeOf(changed), "NO_QUORUM");
  assert.notDeepEqual(manifestHash(changed.manifest!), manifestHash(manifest));
});

test("run, round, base and history must be the reader's own", () => {
  const signed = signedBy(v1);
  assert.equal(codeOf(signed, { runId: "x" }), "WRONG_RUN");
  assert.equal(codeOf(signed, { round: 3 }), "WRONG_ROUND");
  assert.equal(codeOf(signed, { baseRoot: sha256(new Uint8Array([6])) }), "WRONG_BASE");
  assert.equal(codeOf(signed, { previousManifestSha256: baseRoot }), "WRONG_BASE");
  assert.equal(codeOf(signed, { previousManifestSha256: new Uint8Array() }), "OK");
});

test("null rounds say why, contributors are listed once with a usable weight", () => {
  const check = (change: (copy: typeof manifest) => void) => {
    const copy = clone(RoundManifestSchema, manifest);
    change(copy);
    const signatures = [signManifest(copy, v1)];
    return codeOf(create(SignedManifestSchema, { manifest: copy, signatures }));
  };
  assert.equal(
    check((copy) => {
      copy.contributors = [];
    }),
    "MALFORMED",
  );
  assert.equal(
    check((copy) => {
      copy.nullReason = "why";
    }),
    "MALFORMED",
  );
  assert.equal(
    check((copy) => void copy.contributors.push(contributor)),
    "MALFORMED",
  );
  assert.equal(
    check((copy) => {
      copy.contributors[0]!.weight = Number.NaN;
    }),
    "MALFORMED",
  );
  const nothing = check((copy) => {
    copy.contributors = [];
    copy.nullReason = "nobody announced";
  });
  assert.equal(nothing, "OK");
});
