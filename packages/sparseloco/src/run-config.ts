import { create, fromBinary } from "@bufbuild/protobuf";
import { bytesEqual, canonicalBytes, sha256, verifyMessage } from "@covenant/contracts";
import { AggregationRule, type RunConfig, RunConfigSchema } from "@covenant/contracts/templar";
import type { AssignmentRules } from "./assignment.ts";
import { CODEC_1BIT, CODEC_2BIT } from "./codec.ts";
import { accepted, type Checked, refused } from "./result.ts";
import type { LearningRateSchedule } from "./schedule.ts";

/** Version of the protocol this software speaks. */
export const PROTOCOL_VERSION = 1;

/** Key of the signed RunConfig in the run's bucket. */
export const RUN_CONFIG_KEY = "run.pb";

/** Bucket of a run: RunConfig, tokenizer and shards. */
export function runBucket(runId: string): string {
  return `run-${runId}`;
}

const DEFAULT_INNER = {
  steps: 10,
  batchSize: 16,
  peakLearningRate: 3e-3,
  warmupSteps: 20,
  finalLearningRateRatio: 0.1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.1,
  gradientClip: 1.0,
};

const DEFAULT_OUTER = {
  codec: CODEC_2BIT,
  rule: AggregationRule.CONTRIBUTORS,
  learningRate: 1.0,
  errorDecay: 0.95,
  keepPerChunk: 64,
};

/** What a run's owner decides; what is left out takes the defaults of a small demonstration. */
export type RunConfigChoices = {
  runId: string;
  model: NonNullable<RunConfig["model"]>;
  data: NonNullable<RunConfig["data"]>;
  genesisStateRoot: Uint8Array;
  inner?: Partial<typeof DEFAULT_INNER>;
  outer?: Partial<typeof DEFAULT_OUTER>;
  seed?: bigint;
  rounds?: number;
  blocksPerWindow?: number;
  publishBlocks?: number;
  checkpointEveryRounds?: number;
  minimumPeers?: number;
};

/** An unsigned run from the owner's choices and the defaults; sign it with signMessage. */
export function createRunConfig(choices: RunConfigChoices): RunConfig {
  return create(RunConfigSchema, {
    seed: 42n,
    rounds: 32,
    blocksPerWindow: 600,
    publishBlocks: 20,
    checkpointEveryRounds: 8,
    protocolVersion: PROTOCOL_VERSION,
    minimumPeers: 1,
    ...choices,
    inner: { ...DEFAULT_INNER, ...choices.inner },
    outer: { ...DEFAULT_OUTER, ...choices.outer },
  });
}

/** SHA-256 of the canonical signed RunConfig: what the owner commits on the ledger. */
export function runConfigHash(run: RunConfig): Uint8Array {
  return sha256(canonicalBytes(RunConfigSchema, run));
}

/** Largest RunConfig that is read. */
export const RUN_CONFIG_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Reads the RunConfig a run's owner stored: its SHA-256 must be the one on the ledger, the owner must have signed it, and every
 * field must be within bounds.
 */
export function openRunConfig(
  bytes: Uint8Array,
  committedSha256: Uint8Array,
  owner: string,
): Checked<RunConfig> {
  if (bytes.length > RUN_CONFIG_BYTES_MAX) return refused("TOO_LARGE", `${bytes.length} bytes`);
  if (!bytesEqual(sha256(bytes), committedSha256)) {
    return refused("HASH_MISMATCH", "the stored run is not the one committed on the ledger");
  }
  let run: RunConfig;
  try {
    run = fromBinary(RunConfigSchema, bytes);
  } catch {
    return refused("MALFORMED", "the stored run is not a RunConfig");
  }
  if (run.signature?.hotkey !== owner) return refused("BAD_SIGNATURE", "not signed by the owner");
  const problems = runConfigProblems(run);
  return problems.length === 0 ? accepted(run) : refused("MALFORMED", problems.join("; "));
}

type Rule = [path: string, value: number, min: number, max: number];

function numericRules(run: RunConfig): Rule[] {
  const { model, data, inner, outer } = run;
  const tiny = 1e-12;
  return [
    ["model.vocab_size", model?.vocabSize ?? 0, 2, 65_536],
    ["model.hidden_size", model?.hiddenSize ?? 0, 2, 65_536],
    ["model.intermediate_size", model?.intermediateSize ?? 0, 2, 1_048_576],
    ["model.num_hidden_layers", model?.numHiddenLayers ?? 0, 1, 512],
    ["model.num_attention_heads", model?.numAttentionHeads ?? 0, 1, 1024],
    ["model.num_key_value_heads", model?.numKeyValueHeads ?? 0, 1, 1024],
    ["model.max_position_embeddings", model?.maxPositionEmbeddings ?? 0, 1, 1_048_576],
    ["model.rope_theta", model?.ropeTheta ?? 0, 1, 1e12],
    ["model.rms_norm_eps", model?.rmsNormEps ?? 0, tiny, 1],
    ["data.sequence_length", data?.sequenceLength ?? 0, 1, model?.maxPositionEmbeddings ?? 0],
    ["data.held_out_bytes_per_token", data?.heldOutBytesPerToken ?? 0, tiny, 1024],
    ["inner.steps", inner?.steps ?? 0, 1, 10_000],
    ["inner.batch_size", inner?.batchSize ?? 0, 1, 65_536],
    ["inner.peak_learning_rate", inner?.peakLearningRate ?? 0, tiny, 10],
    ["inner.warmup_steps", inner?.warmupSteps ?? 0, 0, 1_000_000_000],
    ["inner.final_learning_rate_ratio", inner?.finalLearningRateRatio ?? -1, 0, 1],
    ["inner.beta1", inner?.beta1 ?? -1, 0, 0.999999],
    ["inner.beta2", inner?.beta2 ?? -1, 0, 0.999999],
    ["inner.epsilon", inner?.epsilon ?? 0, tiny, 1],
    ["inner.weight_decay", inner?.weightDecay ?? -1, 0, 10],
    ["inner.gradient_clip", inner?.gradientClip ?? 0, tiny, 1e6],
    ["outer.learning_rate", outer?.learningRate ?? 0, tiny, 10],
    ["outer.error_decay", outer?.errorDecay ?? -1, 0, 1],
    ["outer.keep_per_chunk", outer?.keepPerChunk ?? 0, 1, 4096],
    ["rounds", run.rounds, 1, 10_000_000],
    ["blocks_per_window", run.blocksPerWindow, 1, 10_000_000],
    ["publish_blocks", run.publishBlocks, 0, 1_000_000],
    ["checkpoint_every_rounds", run.checkpointEveryRounds, 1, 10_000_000],
    ["protocol_version", run.protocolVersion, 1, PROTOCOL_VERSION],
    ["minimum_peers", run.minimumPeers, 1, 256],
  ];
}

/**
 * Every problem of a RunConfig, one sentence each; empty when it is valid. Covers bounds, hashes, shards, codec and the
 * owner's signature; the reader separately compares its hash with the ledger.
 */
export function runConfigProblems(run: RunConfig): string[] {
  const problems: string[] = [];
  if (!/^[a-z0-9][a-z0-9-]{0,39}$/.test(run.runId)) {
    problems.push("run_id must be 1 to 40 lower-case letters, digits and hyphens");
  }
  for (const [path, value, min, max] of numericRules(run)) {
    if (!(value >= min && value <= max))
      problems.push(`${path} is ${value}, not in [${min}, ${max}]`);
  }
  const { model, outer } = run;
  if (model && model.hiddenSize % model.numAttentionHeads !== 0) {
    problems.push("model.hidden_size must be a multiple of num_attention_heads");
  }
  if (model && model.numAttentionHeads % model.numKeyValueHeads !== 0) {
    problems.push("model.num_attention_heads must be a multiple of num_key_value_heads");
  }
  if (outer && outer.codec !== CODEC_2BIT && outer.codec !== CODEC_1BIT) {
    problems.push(`outer.codec ${outer.codec} is unknown`);
  }
  if (outer && outer.rule !== AggregationRule.CONTRIBUTORS && outer.rule !== AggregationRule.ALL) {
    problems.push(`outer.rule ${outer.rule} is unknown`);
  }
  if (run.genesisStateRoot.length !== 32) problems.push("genesis_state_root must have 32 bytes");
  problems.push(...dataProblems(run));
  if (!verifyMessage(RunConfigSchema, run)) problems.push("the owner's signature does not verify");
  return problems;
}

function dataProblems(run: RunConfig): string[] {
  const { data } = run;
  if (data === undefined) return ["data is missing"];
  const problems: string[] = [];
  if (data.bucket === "") problems.push("data.bucket is empty");
  if (data.tokenizerSha256.length !== 32) problems.push("data.tokenizer_sha256 must have 32 bytes");
  if (data.train.length === 0) problems.push("data.train has no shard");
  if (data.heldOut.length === 0) problems.push("data.held_out has no shard");
  for (const shard of [...data.train, ...data.heldOut]) {
    if (shard.key === "" || shard.sha256.length !== 32 || shard.sampleCount < 1) {
      problems.push(`shard "${shard.key}" lacks its key, hash or samples`);
    }
  }
  return problems;
}

/** The assignment rules of a validated run. */
export function assignmentRules(run: RunConfig): AssignmentRules {
  return {
    seed: run.seed,
    sampleCount: (run.data?.train ?? []).reduce((sum, shard) => sum + shard.sampleCount, 0),
    samplesPerRound: (run.inner?.steps ?? 0) * (run.inner?.batchSize ?? 0),
  };
}

/** The learning-rate schedule of a validated run. */
export function learningRateSchedule(run: RunConfig): LearningRateSchedule {
  return {
    peakLearningRate: run.inner?.peakLearningRate ?? 0,
    warmupSteps: run.inner?.warmupSteps ?? 0,
    finalLearningRateRatio: run.inner?.finalLearningRateRatio ?? 0,
    totalSteps: run.rounds * (run.inner?.steps ?? 0),
  };
}

/** True when the state after this round (0-based) goes to the checkpoint registry. */
export function isCheckpointRound(run: RunConfig, round: number): boolean {
  return round + 1 === run.rounds || (round + 1) % run.checkpointEveryRounds === 0;
}
