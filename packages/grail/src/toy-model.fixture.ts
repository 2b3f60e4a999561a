/**
 * A model small enough to write down: the next-token distribution and the hidden state are hashes of
 * the weights' name and the context. It lets tests forge and verify proofs without an engine.
 */
import { create } from "@bufbuild/protobuf";
import { hotkeyFromSeed, sha256, signMessage, uniformAt } from "@covenant/contracts";
import {
  type CommitGroupRequest,
  CommitGroupRequestSchema,
  type ProofStatement,
  ProofStatementSchema,
  type RolloutContract,
  type TokenRecord,
} from "@covenant/contracts/grail";
import { expectedStatement } from "./check-commitment.ts";
import { buildAssignment, buildContract } from "./contract.ts";
import type { ReplayResult } from "./judge-replay.ts";
import { commitCompletion, openCompletion, tokenRecords } from "./records.ts";
import { samplingSeed } from "./seeds.ts";
import { exactThresholds } from "./thresholds.ts";
import type { ReplayRequest } from "./verify-completion.ts";
import type { GroupEvidence } from "./verify-group.ts";

export const toyVocabulary = 12;
export const toyStop = 11;
const toyPromptLength = 4;
const encoder = new TextEncoder();

/** Named weights; two names are two unrelated models. */
export interface ToyModel {
  weights: string;
}

function digest(model: ToyModel, label: string, context: readonly number[]): Uint8Array {
  return sha256(encoder.encode(`${model.weights}|${label}|${context.join(",")}`));
}

function probabilities(model: ToyModel, context: readonly number[]): number[] {
  const bytes = digest(model, "logits", context);
  const weights = Array.from({ length: toyVocabulary }, (_, j) => Math.exp(bytes[j]! / 80));
  // Completions have at least five tokens, so that there is something to move, swap and cut.
  weights[toyStop]! *= context.length < toyPromptLength + 4 ? 0 : 0.7;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

function fingerprintOf(
  model: ToyModel,
  context: readonly number[],
  seed: Uint8Array,
  dims: number,
) {
  const hidden = digest(model, "hidden", context);
  return Int8Array.from({ length: dims }, (_, m) => {
    let sum = 0;
    for (let i = 0; i < 32; i++) {
      const sign = (seed[(m + i) % 32]! >> (i % 8)) & 1 ? 1 : -1;
      sum += (sign * (hidden[i]! - 127.5)) / 74;
    }
    return Math.max(-128, Math.min(127, Math.round((16 * sum) / Math.sqrt(32))));
  });
}

function draw(shares: readonly number[], u: number): number {
  let sum = 0;
  for (const [token, share] of shares.entries()) {
    sum += share;
    if (u < sum) return token;
  }
  return shares.length - 1;
}

/** What an engine reports when it generates from this statement. */
export function toyGenerate(model: ToyModel, contract: RolloutContract, statement: ProofStatement) {
  const seed = samplingSeed(statement);
  const tokens: number[] = [];
  while (tokens.length < contract.sampling!.maxNewTokens && tokens.at(-1) !== toyStop) {
    const shares = probabilities(model, [...statement.promptTokens, ...tokens]);
    tokens.push(draw(shares, uniformAt(seed, tokens.length)));
  }
  return toyReport(model, contract, statement, tokens);
}

/** What an engine reports when it is fed tokens that somebody wrote: the prefill spoof. */
export function toyReport(
  model: ToyModel,
  contract: RolloutContract,
  statement: ProofStatement,
  tokens: readonly number[],
) {
  const dims = contract.fingerprintDims;
  const fingerprints = new Int8Array(tokens.length * dims);
  const logProbs = tokens.map((token, t) => {
    const context = [...statement.promptTokens, ...tokens.slice(0, t)];
    const print = fingerprintOf(model, context, contract.fingerprintSeed, dims);
    fingerprints.set(print, t * dims);
    return Math.log(probabilities(model, context)[token]!);
  });
  return { tokens, logProbs, fingerprints };
}

/** The verifier's engine. */
export function toyReplay(
  model: ToyModel,
  request: ReplayRequest,
  fingerprint: { seed: Uint8Array; dims: number },
): ReplayResult {
  const completion = [...request.completion];
  const fingerprints = new Int8Array(completion.length * fingerprint.dims);
  const drawn: number[] = [];
  const margin: number[] = [];
  const logProbs: number[] = [];
  completion.forEach((token, t) => {
    const context = [...request.prompt, ...completion.slice(0, t)];
    const shares = probabilities(model, context);
    const u = uniformAt(request.samplingSeed, t);
    const low = shares.slice(0, token).reduce((sum, share) => sum + share, 0);
    drawn.push(draw(shares, u));
    margin.push(drawn[t] === token ? Math.min(u - low, low + shares[token]! - u) : 0);
    logProbs.push(Math.log(shares[token]!));
    const print = fingerprintOf(model, context, fingerprint.seed, fingerprint.dims);
    fingerprints.set(print, t * fingerprint.dims);
  });
  return { drawn, margin, logProbs, fingerprints };
}

export const toyHotkey = hotkeyFromSeed(new Uint8Array(32).fill(7));
export const toyContext = {
  vocabularySize: toyVocabulary,
  acceptedStatements: new Set<string>(),
  thresholds: exactThresholds,
};

export const toyContract = buildContract({
  contractId: "toy-v0-0",
  runId: "toy",
  policyVersion: 0,
  checkpointRoot: sha256(encoder.encode("checkpoint")),
  environment: "arithmetic@1",
  sampling: { temperature: 1, topK: 0, topP: 1, maxNewTokens: 24, stopTokenIds: [toyStop] },
  groupSize: 4,
  beaconBlock: 5,
  beacon: sha256(encoder.encode("beacon")),
  deadlineBlock: 100,
});

/** A forger's chance to change what is committed, before it is signed. */
export interface Forgery {
  statement?: (statement: ProofStatement, index: number) => void;
  records?: (records: TokenRecord[], index: number) => TokenRecord[];
  /** Replaces generation altogether. */
  generate?: (statement: ProofStatement, index: number) => ReturnType<typeof toyReport>;
  commit?: (commit: CommitGroupRequest) => void;
}

/** A group for slot 0, honest unless forged, opened for its challenge. */
export function toyGroup(model: ToyModel, forgery: Forgery = {}, slot = 0): GroupEvidence {
  const contract = toyContract;
  const assignment = buildAssignment(contract, slot, `toy-g${slot}`);
  const promptTokens = [1, 2, 3, slot % 10];
  const challengeRandomness = sha256(encoder.encode("challenge"));
  const all = Array.from({ length: contract.groupSize }, (_, i) => {
    const statement = create(
      ProofStatementSchema,
      expectedStatement({
        contract,
        environmentSeed: assignment.environmentSeed,
        promptTokens,
        rolloutIndex: assignment.firstRolloutIndex + i,
      }),
    );
    forgery.statement?.(statement, i);
    const completion = forgery.generate?.(statement, i) ?? toyGenerate(model, contract, statement);
    const honest = tokenRecords(completion, contract.fingerprintDims);
    const records = forgery.records?.(honest, i) ?? honest;
    const commitment = commitCompletion(statement, records);
    return { commitment, openings: openCompletion(commitment, records, challengeRandomness) };
  });
  const commit = create(CommitGroupRequestSchema, {
    groupId: assignment.groupId,
    contractId: contract.contractId,
    completions: all.map((one) => one.commitment),
    claimedRewards: all.map(() => 0),
  });
  forgery.commit?.(commit);
  commit.signature = signMessage(CommitGroupRequestSchema, commit, toyHotkey);
  return {
    contract,
    assignment,
    promptTokens,
    hotkey: toyHotkey.address,
    commit,
    committedAtBlock: 10,
    challengeBlock: 11,
    challengeRandomness,
    openings: all.map((one) => one.openings),
  };
}
