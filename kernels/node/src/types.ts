/** Shape of a LLaMA-style decoder; the names follow Hugging Face's `config.json`. */
export interface ModelShape {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layerCount: number;
  headCount: number;
  kvHeadCount: number;
  maxPositions: number;
  ropeTheta: number;
  rmsNormEps: number;
  tieWordEmbeddings: boolean;
}

/** One tensor of the flat parameter buffer; offset and length count floats. */
export interface TensorInfo {
  name: string;
  shape: readonly number[];
  offset: number;
  length: number;
}

/** How activations travel: `rows` of `width` values, rounded to bf16, to int8, or to int4 after a Hadamard rotation. */
export interface ActivationOptions {
  codec: "bf16" | "int8" | "int4";
  rows: number;
  width: number;
  /** The machine's default when absent. */
  threads?: number | undefined;
}

/** A projection of rows of `width` values to `rank` ones. */
export interface ProjectionOptions {
  width: number;
  /** 1 to width. */
  rank: number;
  /** Of the first basis; default 0. */
  seed?: bigint;
  /** What is known of a row by its token, vocab × width; kept, not copied. */
  table?: Float32Array;
  /** The machine's default when absent. */
  threads?: number;
}

/** Row-major (sequences, sequenceLength). Position t predicts `targets[t]` from `tokens[0..t]`; -1 is not scored. */
export interface Batch {
  tokens: Int32Array;
  targets: Int32Array;
  sequences: number;
  sequenceLength: number;
}

/** AdamW with decoupled decay, none on one-dimensional tensors. `gradientClip` 0 turns clipping off. */
export interface OptimizerOptions {
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  gradientClip: number;
}

/** The matrices that can have adapters, in the order of the adapters' buffers. */
export const adapterTargets = ["q", "k", "v", "o", "gate", "up", "down"] as const;

/** One of {@link adapterTargets}. */
export type AdapterTarget = (typeof adapterTargets)[number];

/** Low-rank adapters: W' = W + (alpha / rank) B A. */
export interface AdapterOptions {
  /** 1 to 1024. */
  rank: number;
  alpha: number;
  /** Default: all. */
  targets?: readonly AdapterTarget[];
  /** Of A, uniform in ±1 / √inputs; B begins as zeros. Default 0. */
  seed?: bigint;
}

/** Options of a job that runs as a whole. */
export interface JobOptions {
  /** Aborting rejects with COV_KERNELS_CANCELLED unless the job has begun. */
  signal?: AbortSignal;
}

/** Random projections of the hidden state behind each token; `dims` from 1 to 64. */
export interface FingerprintOptions {
  /** 32 bytes. */
  seed: Uint8Array;
  dims: number;
}

/** What a completion was drawn with. `topK` 0 and `topP` 1 keep every token; temperature 0 takes the most probable. */
export interface SamplingOptions {
  temperature: number;
  topK: number;
  topP: number;
  /** 32 bytes; draw i of the completion uses uniform i of this seed. */
  samplingSeed: Uint8Array;
}

/** A prompt to complete. */
export interface GenerateRequest extends SamplingOptions {
  /** At least one token; copied. */
  prompt: Int32Array;
  /** At least 1; with the prompt at most `maxPositions` of the shape. */
  maxNewTokens: number;
  /** Each ends the completion and is its last token; 64 at most. */
  stopTokens: readonly number[];
}

/** A token as it is drawn. */
export interface TokenEvent {
  /** Position in the list of requests. */
  request: number;
  /** Position in the completion. */
  index: number;
  token: number;
  logProb: number;
}

/**
 * How generation and replay keep the weights: as they are; rounded to bf16, with keys and values; or as bytes with a
 * scale per output. A replay under a type has the bits of a generation under it. On devices bf16 and int8 have the
 * bits of the CPU, whatever the model computes in; f32 is the type of the model's compute.
 */
export type WeightType = "f32" | "bf16" | "int8";

/** How a list of requests is completed. */
export interface GenerateOptions {
  /** Default f32. */
  weights?: WeightType;
  /** Called for each token, in order within a request, before the promise settles. */
  onToken?: (event: TokenEvent) => void;
  /** Aborting rejects with COV_KERNELS_CANCELLED at the next token. */
  signal?: AbortSignal;
  /** Default: none are made. */
  fingerprint?: FingerprintOptions;
  /** Most probable tokens to report per position, 0 to 256. Default 0. */
  topLogProbs?: number;
  /** Sequences decoded at once; 0, the default, leaves it to the engine. */
  maxBatch?: number;
}

/** A completion. */
export interface GenerateResult {
  /** Includes the stop token. */
  tokens: Int32Array;
  /** Before temperature, top-k and top-p. */
  logProbs: Float32Array;
  /** tokens × dims, where the options ask for them. */
  fingerprints?: Int8Array;
  finishReason: "stop" | "length";
  /** tokens × topLogProbs, descending. */
  topTokens?: Int32Array;
  topLogProbs?: Float32Array;
}

/** Limits of a generator; 0 or nothing leaves them to the engine. */
export interface GeneratorOptions {
  /** Default f32. */
  weights?: WeightType;
  /** Requests computed in turn, by each replica; further ones wait. */
  maxBatch?: number;
  /** Positions of one step: longer prompts are cut into chunks, so that decoding goes on meanwhile. */
  stepRows?: number;
  /** Pages of 16 positions for keys and values, of each replica; default: as the model's memory limit allows. */
  pageLimit?: number;
  /** Requests at once, computed and waiting; default 4096. What is more rejects with COV_KERNELS_BUSY. */
  requestLimit?: number;
}

/** What a generator holds. */
export interface GeneratorState {
  running: number;
  waiting: number;
  pages: number;
  pageBytes: number;
  weightBytes: number;
  computedPositions: number;
  /** Positions taken over from a request that begins alike. */
  sharedPositions: number;
  preemptions: number;
}

/** Options of one request to a generator. */
export interface GeneratorCallOptions {
  /** Called for each token, in order, before the promise settles; `index` is its position in the completion. */
  onToken?: (event: { index: number; token: number; logProb: number }) => void;
  signal?: AbortSignal;
  fingerprint?: FingerprintOptions;
  /** Most probable tokens to report per position, 0 to 256. */
  topLogProbs?: number;
}

/** What a replay computes besides the draws, and with which weights. */
export interface ReplayOptions {
  fingerprint?: FingerprintOptions;
  signal?: AbortSignal;
  /** That of the generation; default f32. */
  weights?: WeightType;
}

/** A claimed completion, and what it is said to have been drawn with. */
export interface ReplayRequest extends SamplingOptions {
  prompt: Int32Array;
  completion: Int32Array;
}

/** What a replay finds; one value for each token of the completion. */
export interface ReplayResult {
  /** The token that the bound sampler draws at each position. */
  drawn: Int32Array;
  /** |u − nearest edge| of the claimed token's interval of the CDF when u lies inside it, else 0. */
  margin: Float32Array;
  /** Of the claimed tokens, before temperature. */
  logProbs: Float32Array;
  /** tokens × dims. */
  fingerprints?: Int8Array;
}

/** What a forward pass keeps and reports. */
export interface ForwardOptions {
  /** Keep what backward needs. */
  keepActivations?: boolean;
  /** Most probable tokens to report per position, 0 to 256. */
  topLogProbs?: number;
  /** Log-probabilities are those of softmax(logits / temperature); default 1. */
  temperature?: number;
}

/** One value per position; 0 where a position is not scored. */
export interface ForwardResult {
  logProbs: Float32Array;
  /** Nats. */
  entropy: Float32Array;
  topTokens?: Int32Array;
  topLogProbs?: Float32Array;
}

/** What a model on the CPU starts from, and what it may use. */
export interface ModelOptions {
  /** Initial values, copied; zeros without them. */
  parameters?: Float32Array;
  /** Default: what CPU affinity and the cgroup allow. */
  threads?: number;
  /** Cap of everything this model allocates; a call that would pass it fails with COV_KERNELS_MEMORY_LIMIT. */
  memoryLimitBytes?: number;
  /**
   * Operands of products with the weights: as they are, or rounded to bf16 with fp32 sums (faster; parameters,
   * gradients and everything between stay fp32). Default: "f32".
   */
  compute?: "f32" | "bf16";
}

/** The flat buffers of a model or of adapters. */
export type BufferName = "parameters" | "gradients" | "firstMoment" | "secondMoment";

/** Part of a buffer, in floats; all that follows `offset` without a count. */
export interface BufferRange {
  offset?: number;
  count?: number;
}

/** What a model on CUDA devices starts from, where it lies, and how it computes. */
export interface DeviceModelOptions {
  /** Different indices of `devices()`; default: the first. */
  devices?: readonly number[];
  /**
   * How several devices share the work. Each holds the whole model and takes part of every batch; or each holds some of
   * the layers; or replicas of `stages` devices do both. Default: "data-parallel".
   */
  layout?: "data-parallel" | "layer-split" | { stages: number };
  /** Initial values, copied; zeros without them. */
  parameters?: Float32Array;
  /** Cap of what the model allocates on each device; a call that would pass it fails with COV_KERNELS_MEMORY_LIMIT. */
  memoryLimitBytes?: number;
  /** "bf16": everything between products as well, on tensor cores, with other bits than on the CPU. Default: "f32". */
  compute?: "f32" | "bf16";
  /** What multiplies in bf16 training on one device: own kernels, or cuBLASLt where it is found. Default: "own". */
  products?: "own" | "cublaslt";
  /** What adds gradients between devices: copies in a fixed order, or NCCL where it is found. Default: "ordered". */
  collectives?: "ordered" | "nccl";
}

/** The layers of a model that are on one device. */
export interface DevicePlace {
  device: number;
  firstLayer: number;
  layerCount: number;
}

/** How a run compresses its updates. */
export interface SparseFormat {
  /** Values kept of 4096, 1 to 4096. */
  keepPerChunk: number;
  /** Bits per value: sign and two levels, or sign alone. */
  mode: "2bit" | "1bit";
}

/** What `compress` reads and updates. */
export interface CompressOptions extends SparseFormat {
  /** θ, the shared parameters at the start of the round. */
  base: Float32Array;
  /** θ_r, after the inner steps. */
  current: Float32Array;
  /** e, updated in place. */
  errorFeedback: Float32Array;
  tensors: readonly TensorInfo[];
  /** β, 0 to 1. */
  errorDecay: number;
  /** Default 1; the bits do not depend on it. */
  threads?: number;
}

/** The updates of a round, and how they are merged. */
export interface AggregateOptions extends SparseFormat {
  updates: readonly Uint8Array[];
  /** One per update, ≥ 0; an update of weight 0 is checked and otherwise ignored. */
  weights: Float32Array;
  tensors: readonly TensorInfo[];
  /** `contributors`: divide by the weight of those who sent a coordinate; `all`: by the weight of all. */
  rule: "contributors" | "all";
  clipToMedianNorm: boolean;
  /** Default 1; the bits do not depend on it. */
  threads?: number;
}

/** One CUDA device. */
export interface DeviceInfo {
  index: number;
  name: string;
  memoryBytes: number;
  freeBytes: number;
  /** For example 9 or 8.6. */
  computeCapability: number;
  multiprocessors: number;
  /** The newest CUDA that the driver runs, for example "13.0". */
  driverVersion: string;
}

/** The CUDA devices, and one sentence: which they are, or why there are none. */
export interface DeviceReport {
  report: string;
  devices: DeviceInfo[];
}
