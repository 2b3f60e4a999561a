// Attacks on the sampling proof with the real engine: who does what, and which check finds it.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { hotkeyFromSeed, sha256, signMessage, uniformAt } from "@covenant/contracts";
import {
  CommitGroupRequestSchema,
  type ProofStatement,
  ProofStatementSchema,
} from "@covenant/contracts/grail";
import {
  buildAssignment,
  buildContract,
  checkGroupBeforeReplay,
  commitCompletion,
  exactThresholds,
  expectedStatement,
  type GeneratedCompletion,
  type GroupEvidence,
  groupReplayRequests,
  openCompletion,
  reasonName,
  samplingSeed,
  tokenRecords,
  verifyGroup,
} from "@covenant/grail";
import { initialParameters, Model, type ModelShape } from "@covenant/kernels";

const shape: ModelShape = {
  vocabSize: 64,
  hiddenSize: 32,
  intermediateSize: 64,
  layerCount: 2,
  headCount: 2,
  kvHeadCount: 2,
  maxPositions: 64,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};
const hotkey = hotkeyFromSeed(new Uint8Array(32).fill(5));
const contract = buildContract({
  contractId: "adversary",
  runId: "adversary",
  policyVersion: 0,
  checkpointRoot: sha256(Uint8Array.of(1)),
  environment: "arithmetic@1",
  sampling: { temperature: 1, topK: 0, topP: 1, maxNewTokens: 24, stopTokenIds: [0] },
  groupSize: 4,
  beaconBlock: 1,
  beacon: sha256(Uint8Array.of(2)),
  deadlineBlock: 100,
});
const fingerprint = { seed: contract.fingerprintSeed, dims: contract.fingerprintDims };
const context = {
  vocabularySize: shape.vocabSize,
  acceptedStatements: new Set<string>(),
  thresholds: exactThresholds,
};

/** Random weights are nearly uniform; larger ones give distributions with something to tell. */
async function modelOf(seed: bigint, change: (weight: number, i: number) => number = (w) => w) {
  const parameters = initialParameters(shape, seed).map((weight, i) => change(weight * 4, i));
  const model = await Model.create(shape, { threads: 1, parameters });
  after(() => model.close());
  return model;
}

const policy = await modelOf(1n);
type Completions = (statements: ProofStatement[]) => Promise<GeneratedCompletion[]>;

function generation(model: Model, change: (statement: ProofStatement) => object = () => ({})) {
  return async (statements: ProofStatement[]): Promise<GeneratedCompletion[]> => {
    const requests = statements.map((statement) => ({
      prompt: Int32Array.from(statement.promptTokens),
      maxNewTokens: 24,
      temperature: 1,
      topK: 0,
      topP: 1,
      stopTokens: [0],
      samplingSeed: samplingSeed(statement),
      ...change(statement),
    }));
    const results = await model.generate(requests, { fingerprint });
    return results.map((result) => ({ ...result, fingerprints: result.fingerprints! }));
  };
}

/** Records of given tokens as the right weights would make them. */
async function prefill(statements: ProofStatement[], tokens: ArrayLike<number>[]) {
  const requests = statements.map((statement, i) => ({
    prompt: Int32Array.from(statement.promptTokens),
    completion: Int32Array.from(tokens[i]!),
    temperature: 1,
    topK: 0,
    topP: 1,
    samplingSeed: samplingSeed(statement),
  }));
  const results = await policy.replay(requests, { fingerprint });
  return results.map(({ logProbs, fingerprints, drawn }, i) => ({
    tokens: tokens[i]!,
    logProbs,
    fingerprints: fingerprints!,
    drawn,
  }));
}

async function deliver(slot: number, completions: Completions): Promise<GroupEvidence> {
  const assignment = buildAssignment(contract, slot, `g${slot}`);
  const promptTokens = [3, 9, 4, slot % 64];
  const statements = Array.from({ length: contract.groupSize }, (_, i) => {
    const rolloutIndex = assignment.firstRolloutIndex + i;
    const { environmentSeed } = assignment;
    const claim = { contract, environmentSeed, promptTokens, rolloutIndex };
    return create(ProofStatementSchema, expectedStatement(claim));
  });
  const generated = await completions(statements);
  const records = generated.map((one) => tokenRecords(one, contract.fingerprintDims));
  const commit = create(CommitGroupRequestSchema, {
    groupId: assignment.groupId,
    contractId: contract.contractId,
    completions: records.map((list, i) => commitCompletion(statements[i]!, list)),
    claimedRewards: records.map(() => 0),
  });
  commit.signature = signMessage(CommitGroupRequestSchema, commit, hotkey);
  const challengeRandomness = sha256(Uint8Array.of(3, slot));
  const openings = commit.completions.map((one, i) =>
    openCompletion(one, records[i]!, challengeRandomness),
  );
  const blocks = { committedAtBlock: 2, challengeBlock: 3 };
  const base = { contract, assignment, promptTokens, hotkey: hotkey.address };
  return { ...base, commit, ...blocks, challengeRandomness, openings };
}

async function judge(evidence: GroupEvidence): Promise<string> {
  const early = checkGroupBeforeReplay(evidence, context);
  if (early !== undefined) return reasonName(early.reason);
  const results = await policy.replay(groupReplayRequests(evidence), { fingerprint });
  const replays = results.map((one) => ({ ...one, fingerprints: one.fingerprints! }));
  return reasonName(verifyGroup(evidence, replays, [0, 0, 0, 0], context).reason);
}

/** Reasons over many slots: each attack must be found every time. */
async function reasons(completions: Completions, slots = 24): Promise<string[]> {
  const found = new Set<string>();
  for (let slot = 0; slot < slots; slot++) found.add(await judge(await deliver(slot, completions)));
  return [...found].sort();
}

test("honest groups are accepted, all of them", async () => {
  assert.deepEqual(await reasons(generation(policy)), ["verified"]);
});

test("another model is found by its draws", async () => {
  assert.deepEqual(await reasons(generation(await modelOf(2n))), ["sampling_mismatch"]);
});

test("a nearby model is refused, by draws, fingerprint or log-probabilities", async () => {
  const seed = sha256(Uint8Array.of(4));
  const nearby = await modelOf(1n, (w, i) => w * (1 + 0.2 * (uniformAt(seed, i) - 0.5)));
  const found = await reasons(generation(nearby));
  assert.ok(!found.includes("verified"), String(found));
});

test("another temperature, top-k or random seed is found by the draws", async () => {
  const cases = [{ temperature: 0.7 }, { topK: 4 }, { topP: 0.5 }, { temperature: 0 }];
  for (const change of cases) {
    const found = await reasons(generation(policy, () => change));
    assert.ok(!found.includes("verified"), `${JSON.stringify(change)}: ${found}`);
  }
  const own = generation(policy, (statement) => ({
    samplingSeed: sha256(samplingSeed(statement)),
  }));
  const found = await reasons(own);
  assert.ok(!found.includes("verified"), String(found));
});

test("text of another model, run through the right weights, is found by the draws alone", async () => {
  const foreign = generation(await modelOf(2n));
  const spoof: Completions = async (statements) => {
    const text = await foreign(statements);
    return prefill(
      statements,
      text.map((one) => one.tokens),
    );
  };
  assert.deepEqual(await reasons(spoof), ["sampling_mismatch"]);
});

test("one swapped token among honest ones is found", async () => {
  const swap: Completions = async (statements) => {
    const honest = await generation(policy)(statements);
    const tokens = honest.map((one) => Array.from(one.tokens));
    const at = Math.floor(tokens[1]!.length / 2);
    tokens[1]![at] = 1 + ((tokens[1]![at]! + 7) % 60);
    return prefill(statements, tokens);
  };
  const found = await reasons(swap);
  assert.ok(!found.includes("verified"), String(found));
});

test("suppressing the end, by drawing on where the sampler stops, is found", async () => {
  const suppress: Completions = async (statements) => {
    const noStop = await generation(policy, () => ({ stopTokens: [] }))(statements);
    const tokens = noStop.map((one) =>
      Array.from(one.tokens, (token) => (token === 0 ? 5 : token)),
    );
    return prefill(statements, tokens);
  };
  let stopped = 0;
  for (let slot = 0; slot < 24; slot++) {
    const honest = await deliver(slot, generation(policy));
    const ends = honest.commit.completions.some((one) => one.completionTokens.includes(0));
    const reason = await judge(await deliver(slot, suppress));
    if (!ends) continue;
    stopped++;
    assert.notEqual(reason, "verified");
  }
  assert.ok(stopped > 0);
});

test("right text with made-up hidden states is found", async () => {
  const zeros: Completions = async (statements) => {
    const honest = await generation(policy)(statements);
    return honest.map((one) => ({ ...one, fingerprints: one.fingerprints.map(() => 0) }));
  };
  assert.deepEqual(await reasons(zeros), ["fingerprint_mismatch"]);
  const otherWeights = await modelOf(2n);
  const borrowed: Completions = async (statements) => {
    const honest = await generation(policy)(statements);
    const other = await generation(otherWeights)(statements);
    return honest.map((one, i) => {
      const fingerprints = one.fingerprints.map(
        (_, j) => other[i]!.fingerprints[j % other[i]!.fingerprints.length]!,
      );
      return { ...one, fingerprints };
    });
  };
  assert.deepEqual(await reasons(borrowed), ["fingerprint_mismatch"]);
});
