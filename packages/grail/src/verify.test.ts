import assert from "node:assert/strict";
import { test } from "node:test";
import { clone } from "@bufbuild/protobuf";
import { hotkeyFromSeed, signMessage } from "@covenant/contracts";
import { CommitGroupRequestSchema, ProofReason, type TokenRecord } from "@covenant/contracts/grail";
import fc from "fast-check";
import {
  challengePositions,
  checkGroupBeforeReplay,
  type GroupEvidence,
  groupReplayRequests,
  reasonName,
  statementKey,
  verifyGroup,
} from "./index.ts";
import {
  type Forgery,
  type ToyModel,
  toyContext,
  toyContract,
  toyGenerate,
  toyGroup,
  toyHotkey,
  toyReplay,
  toyReport,
  toyStop,
} from "./toy-model.fixture.ts";

const policy: ToyModel = { weights: "policy" };
const other: ToyModel = { weights: "other" };
const noRewards = [0, 0, 0, 0];

function verdict(evidence: GroupEvidence, rewards = noRewards, context = toyContext) {
  const early = checkGroupBeforeReplay(evidence, context);
  if (early !== undefined) return { ...early, completions: [] };
  const fingerprint = {
    seed: toyContract.fingerprintSeed,
    dims: toyContract.fingerprintDims,
  };
  const replays = groupReplayRequests(evidence).map((request) =>
    toyReplay(policy, request, fingerprint),
  );
  return verifyGroup(evidence, replays, rewards, context);
}

function expectReason(evidence: GroupEvidence, reason: ProofReason, rewards = noRewards) {
  const finding = verdict(evidence, rewards);
  assert.equal(reasonName(finding.reason), reasonName(reason), finding.explanation);
  assert.ok(finding.explanation.length > 0);
}

const forged = (forgery: Forgery) => toyGroup(policy, forgery);

test("honest groups of every slot are verified, with nothing to measure against them", () => {
  for (let slot = 0; slot < 20; slot++) {
    const finding = verdict(toyGroup(policy, {}, slot));
    assert.equal(finding.reason, ProofReason.VERIFIED, finding.explanation);
    for (const one of finding.completions) {
      assert.equal(one.sampledAgree, one.sampledTotal);
      assert.equal(one.fingerprintDistance, 0);
      assert.ok(one.logProbDrift < 1e-6);
    }
  }
});

test("a group sampled from another model is refused, in every slot", () => {
  for (let slot = 0; slot < 20; slot++) {
    const finding = verdict(toyGroup(other, {}, slot));
    assert.equal(finding.reason, ProofReason.SAMPLING_MISMATCH, finding.explanation);
    const agree = finding.completions.reduce((sum, one) => sum + one.sampledAgree, 0);
    const total = finding.completions.reduce((sum, one) => sum + one.sampledTotal, 0);
    assert.ok(agree / total < 0.6);
    assert.ok(finding.completions.every((one) => one.fingerprintDistance > 10));
  }
});

test("text that was written and then run through the right model is refused", () => {
  const evidence = forged({
    generate: (statement) => toyReport(policy, toyContract, statement, [4, 4, 4, 4, toyStop]),
  });
  expectReason(evidence, ProofReason.SAMPLING_MISMATCH);
});

test("the best of many draws under another index is refused", () => {
  const evidence = forged({
    generate: (statement) => {
      const lucky = clone(CommitGroupRequestSchema, toyGroup(policy, {}, 3).commit);
      const index = lucky.completions[0]!.statement!.rolloutIndex;
      return toyGenerate(policy, toyContract, { ...statement, rolloutIndex: index });
    },
  });
  expectReason(evidence, ProofReason.SAMPLING_MISMATCH);
});

test("right tokens with fingerprints of zeros, of other tokens or of another model are refused", () => {
  const zeros = (records: TokenRecord[]) =>
    records.map((record) => ({ ...record, fingerprint: new Uint8Array(16) }));
  const shuffled = (records: TokenRecord[]) =>
    records.map((record, t) => ({
      ...record,
      fingerprint: records[(t + 1) % records.length]!.fingerprint,
    }));
  const turned = (records: TokenRecord[]) =>
    records.map((record) => ({ ...record, fingerprint: record.fingerprint.toReversed() }));
  for (const records of [zeros, shuffled, turned]) {
    expectReason(forged({ records }), ProofReason.FINGERPRINT_MISMATCH);
  }
  const borrowed = forged({
    generate: (statement) => {
      const { tokens, logProbs } = toyGenerate(policy, toyContract, statement);
      const { fingerprints } = toyReport(other, toyContract, statement, tokens);
      return { tokens, logProbs, fingerprints };
    },
  });
  expectReason(borrowed, ProofReason.FINGERPRINT_MISMATCH);
});

test("log-probabilities of another model or temperature are refused", () => {
  const records = (list: TokenRecord[]) =>
    list.map((record) => ({ ...record, logProb: Math.fround(record.logProb * 1.05) }));
  expectReason(forged({ records }), ProofReason.LOG_PROB_DRIFT);
});

test("an end that was left out, moved or stuffed is refused", () => {
  const withTokens = (change: (tokens: number[]) => number[]) =>
    forged({
      generate: (statement) => {
        const { tokens } = toyGenerate(policy, toyContract, statement);
        return toyReport(policy, toyContract, statement, change([...tokens]));
      },
    });
  const shortened = withTokens((tokens) => tokens.slice(0, -2));
  expectReason(shortened, ProofReason.TERMINATION);
  expectReason(
    withTokens((tokens) => [...tokens.slice(0, -2), toyStop]),
    ProofReason.TERMINATION,
  );
  const stuffed = withTokens((tokens) => [...tokens, toyStop, toyStop]);
  expectReason(stuffed, ProofReason.TERMINATION);
  // Going on where the sampler stops, up to the longest length, with tokens it would draw there.
  const suppressed = forged({
    generate: (statement) => {
      const replay = (tokens: number[]) =>
        toyReplay(
          policy,
          {
            prompt: Int32Array.from(statement.promptTokens),
            completion: Int32Array.from([...tokens, 0]),
            temperature: 1,
            topK: 0,
            topP: 1,
            samplingSeed: groupReplayRequests(toyGroup(policy))[statement.rolloutIndex]!
              .samplingSeed,
          },
          { seed: toyContract.fingerprintSeed, dims: 16 },
        ).drawn[tokens.length]!;
      const tokens: number[] = [];
      while (tokens.length < 24) {
        const drawn = replay(tokens);
        tokens.push(drawn === toyStop ? 0 : drawn);
      }
      return toyReport(policy, toyContract, statement, tokens);
    },
  });
  expectReason(suppressed, ProofReason.TERMINATION);
});

test("a statement about anything but the assignment is refused by name", () => {
  const cases: [ProofReason, Forgery["statement"]][] = [
    [
      ProofReason.WRONG_CONTRACT,
      (s) => {
        s.contractId = "toy-v9-0";
      },
    ],
    [
      ProofReason.WRONG_CHECKPOINT,
      (s) => {
        s.checkpointRoot = new Uint8Array(32);
      },
    ],
    [
      ProofReason.WRONG_PROMPT,
      (s) => {
        s.environmentHash = new Uint8Array(32);
      },
    ],
    [
      ProofReason.WRONG_PROMPT,
      (s) => {
        s.promptTokens = [1, 2, 3];
      },
    ],
    [
      ProofReason.WRONG_PROMPT,
      (s) => {
        s.promptTokens = [1, 2, 3, 9];
      },
    ],
    [
      ProofReason.WRONG_SAMPLING,
      (s) => {
        s.sampling!.temperature = 0.5;
      },
    ],
    [
      ProofReason.WRONG_SAMPLING,
      (s) => {
        s.sampling!.stopTokenIds = [];
      },
    ],
    [
      ProofReason.WRONG_SAMPLING,
      (s) => {
        s.beacon = new Uint8Array(32);
      },
    ],
    [
      ProofReason.WRONG_SAMPLING,
      (s) => {
        s.beaconBlock = 6n;
      },
    ],
    [
      ProofReason.WRONG_SAMPLING,
      (s) => {
        s.rolloutIndex += 100;
      },
    ],
  ];
  for (const [reason, statement] of cases) {
    const evidence = forged({
      statement: (s, i) => {
        s.sampling = { ...s.sampling! };
        if (i === 2) statement!(s, i);
      },
      // The tokens stay those of the honest statement, whatever the forged one says.
      generate: (_, i) => toyGenerate(policy, toyContract, honestStatement(i)),
    });
    expectReason(evidence, reason);
  }
});

function honestStatement(index: number) {
  return toyGroup(policy).commit.completions[index]!.statement!;
}

test("a group signed by somebody else, or changed after it was signed, is refused", () => {
  const evidence = toyGroup(policy);
  const stranger = hotkeyFromSeed(new Uint8Array(32).fill(9));
  const resigned = clone(CommitGroupRequestSchema, evidence.commit);
  resigned.signature = signMessage(CommitGroupRequestSchema, resigned, stranger);
  expectReason({ ...evidence, commit: resigned }, ProofReason.BAD_SIGNATURE);
  const changed = clone(CommitGroupRequestSchema, evidence.commit);
  changed.claimedRewards[0] = 1;
  expectReason({ ...evidence, commit: changed }, ProofReason.BAD_SIGNATURE);
  expectReason({ ...evidence, hotkey: stranger.address }, ProofReason.BAD_SIGNATURE);
});

test("a group for another assignment, a replayed one and one with a repeated draw are refused", () => {
  const evidence = toyGroup(policy);
  const elsewhere = toyGroup(policy, {}, 3);
  const replayed = forged({
    commit: (commit) => {
      commit.completions = elsewhere.commit.completions;
    },
  });
  expectReason({ ...replayed, openings: elsewhere.openings }, ProofReason.WRONG_PROMPT);
  expectReason({ ...elsewhere, assignment: evidence.assignment }, ProofReason.WRONG_CONTRACT);
  const repeated = forged({
    commit: (commit) => {
      commit.completions[1] = commit.completions[0]!;
    },
  });
  expectReason(repeated, ProofReason.DUPLICATE);
  const acceptedStatements = new Set([statementKey(honestStatement(1))]);
  const again = verdict(evidence, noRewards, { ...toyContext, acceptedStatements });
  assert.equal(again.reason, ProofReason.DUPLICATE);
});

test("records and tokens that are two different sequences are refused", () => {
  const evidence = forged({
    commit: (commit) => {
      const tokens = commit.completions[0]!.completionTokens;
      tokens[0] = (tokens[0]! + 1) % 10;
    },
  });
  expectReason(evidence, ProofReason.OPENING_MISMATCH);
});

test("an opening that was not asked for, or not committed, is refused", () => {
  const change = (edit: (evidence: GroupEvidence) => void) => {
    const evidence = structuredClone(toyGroup(policy));
    edit(evidence);
    expectReason(evidence, ProofReason.OPENING_MISMATCH);
  };
  change((e) => e.openings[0]!.openings.pop());
  change((e) => e.openings[0]!.openings.reverse());
  change((e) => {
    e.openings[0]!.openings[0]!.record!.fingerprint[0]! ^= 1;
  });
  change((e) => {
    e.openings[0]!.openings[0]!.record!.logProb -= 0.5;
  });
  change((e) => e.openings[0]!.openings[0]!.merklePath.push(new Uint8Array(32)));
  change((e) => e.openings[1]!.openings.push(e.openings[1]!.openings[0]!));
  change((e) => {
    e.openings[2]!.rolloutIndex++;
  });
  expectReason(
    { ...toyGroup(policy), openings: toyGroup(policy).openings.slice(1) },
    ProofReason.OPENING_MISMATCH,
  );
});

test("a commitment after the deadline, or after its challenge was known, is late", () => {
  const evidence = toyGroup(policy);
  expectReason({ ...evidence, committedAtBlock: 101, challengeBlock: 102 }, ProofReason.LATE);
  expectReason({ ...evidence, committedAtBlock: 11 }, ProofReason.LATE);
});

test("a claimed reward that the grader does not give is refused", () => {
  expectReason(toyGroup(policy), ProofReason.WRONG_REWARD, [0, 0, 0, 1]);
  expectReason(toyGroup(policy), ProofReason.WRONG_REWARD, [0, 0, 0, Number.NaN]);
});

test("sizes that a verifier would choke on are malformed", () => {
  const cases: Forgery[] = [
    {
      commit: (c) => {
        c.completions = [];
      },
    },
    {
      commit: (c) => {
        c.claimedRewards = [];
      },
    },
    {
      commit: (c) => {
        c.completions[0]!.completionTokens = [];
      },
    },
    {
      commit: (c) => {
        c.completions[0]!.completionTokens = [4_000_000_000];
      },
    },
    {
      commit: (c) => {
        c.completions[0]!.completionTokens = new Array(40_000).fill(1);
      },
    },
    {
      commit: (c) => {
        c.completions[0]!.recordRoot = new Uint8Array(31);
      },
    },
    { records: (list) => list.map((r) => ({ ...r, fingerprint: new Uint8Array(15) })) },
    { records: (list) => list.map((r) => ({ ...r, logProb: Number.NaN })) },
    { records: (list) => list.map((r) => ({ ...r, logProb: 1 })) },
  ];
  for (const forgery of cases) {
    const evidence = forged(forgery);
    const openings = evidence.openings.slice(0, evidence.commit.completions.length);
    expectReason({ ...evidence, openings }, ProofReason.MALFORMED);
  }
});

test("challenged positions are distinct, in range, ascending and hang on the randomness", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.integer({ min: 1, max: 3000 }),
      (randomness, count) => {
        const recordRoot = new Uint8Array(32);
        const key = { randomness, recordRoot, rolloutIndex: 0, count };
        const positions = challengePositions(key);
        assert.equal(positions.length, Math.min(16, count));
        assert.equal(new Set(positions).size, positions.length);
        assert.deepEqual(
          positions,
          positions.toSorted((a, b) => a - b),
        );
        assert.ok(positions.every((p) => Number.isInteger(p) && p >= 0 && p < count));
      },
    ),
  );
  const counts = new Array(40).fill(0);
  for (let i = 0; i < 4000; i++) {
    const randomness = Uint8Array.from({ length: 32 }, (_, j) => (i >> (j % 16)) & 0xff);
    const key = {
      randomness,
      recordRoot: new Uint8Array(32),
      rolloutIndex: i,
      count: 40,
      open: 10,
    };
    for (const position of challengePositions(key)) counts[position]++;
  }
  // Each position is opened in a quarter of the challenges: 1000 of 4000, standard deviation 27.
  assert.ok(
    counts.every((count) => Math.abs(count - 1000) < 160),
    String(counts),
  );
});

test("the address in the evidence is the one that signed", () => {
  assert.equal(toyGroup(policy).commit.signature!.hotkey, toyHotkey.address);
});
