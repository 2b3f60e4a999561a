import { loadAddon } from "./addon.ts";
import type {
  Batch,
  DevicePlace,
  DeviceReport,
  FingerprintOptions,
  GeneratorOptions,
  GeneratorState,
  ModelOptions,
  ModelShape,
  OptimizerOptions,
  ReplayRequest,
  TensorInfo,
  WeightType,
} from "./types.ts";

/** A sparse format as the addon takes it. */
export interface NativeFormat {
  keepPerChunk: number;
  /** Bits per value. */
  mode: number;
}

/** Shape of a payload of activations as the addon takes it. */
interface NativeActivation {
  /** 0 bf16, 1 int8, 2 int4. */
  kind: number;
  rows: number;
  width: number;
  threads: number | undefined;
}

/** A projection as the addon takes it; the width is what the basis has by its rank. */
export interface NativeProjection {
  basis: Float32Array;
  table: Float32Array | undefined;
  rank: number;
  threads: number | undefined;
}

/** What backward adds to. */
export interface NativeProjectionGradients {
  basisGradient: Float32Array | undefined;
  tableGradient: Float32Array | undefined;
}

interface NativeGenerateRequest {
  prompt: Int32Array;
  maxNewTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  stopTokens: Int32Array;
  samplingSeed: Uint8Array;
}

/** Arrays that generate fills. */
export interface NativeGenerateOutput {
  tokens: Int32Array;
  logProbs: Float32Array;
  fingerprints: Int8Array | undefined;
  topTokens: Int32Array | undefined;
  topLogProbs: Float32Array | undefined;
}

interface NativeGenerateOptions {
  fingerprint: FingerprintOptions | undefined;
  weights: WeightType | undefined;
  topCount: number;
  maxBatch: number;
  cancel: Int32Array;
  onToken: ((request: number, index: number, token: number, logProb: number) => void) | undefined;
}

/** Arrays that replay fills. */
export interface NativeReplayOutput {
  drawn: Int32Array;
  margin: Float32Array;
  logProbs: Float32Array;
  fingerprints: Int8Array | undefined;
}

/** Arrays that forward fills. */
interface NativeForwardOutput {
  logProbs: Float32Array;
  entropy: Float32Array;
  topTokens: Int32Array | undefined;
  topLogProbs: Float32Array | undefined;
}

/** A model on devices as the addon takes it. */
interface NativeDeviceOptions {
  devices: readonly number[];
  /** Devices that share the layers of one replica. */
  stages: number;
  parameters: Float32Array | undefined;
  memoryLimitBytes: number | undefined;
  compute: "f32" | "bf16" | undefined;
  vendorProducts: boolean;
  nccl: boolean;
}

/** One of a model's buffers: 0 parameters, 1 gradients, 2 first moment, 3 second moment. */
export type NativeBuffer = 0 | 1 | 2 | 3;

/** The class Model of the addon: a model on the CPU or on devices, or adapters of one. */
export interface NativeModel {
  /** On the CPU only. */
  view(which: NativeBuffer): Float32Array;
  /** Floats in each buffer. */
  length(): number;
  read(which: NativeBuffer, offset: number, values: Float32Array): Promise<void>;
  write(which: NativeBuffer, offset: number, values: Float32Array): Promise<void>;
  forward(
    batch: Batch,
    options: { keepActivations: boolean; topCount: number; temperature: number },
    output: NativeForwardOutput,
  ): Promise<void>;
  backward(coefficients: Float32Array): Promise<void>;
  optimizerStep(options: OptimizerOptions): Promise<{ gradientNorm: number }>;
  trainStep(
    batch: Batch,
    optimizer: OptimizerOptions,
    options: { cancel: Int32Array },
  ): Promise<{ loss: number; gradientNorm: number }>;
  generate(
    requests: NativeGenerateRequest[],
    options: NativeGenerateOptions,
    outputs: NativeGenerateOutput[],
  ): Promise<{ tokenCount: number; stopped: boolean }[]>;
  replay(
    requests: readonly ReplayRequest[],
    options: {
      fingerprint: FingerprintOptions | undefined;
      weights: WeightType | undefined;
      cancel: Int32Array;
    },
    outputs: NativeReplayOutput[],
  ): Promise<void>;
  createGenerator(options: Required<GeneratorOptions>): Promise<NativeGenerator>;
  /** targets: bits in the order of adapterTargets. What it resolves to works with the adapters. */
  createAdapter(options: {
    rank: number;
    alpha: number;
    targets: number;
    seed: bigint;
  }): Promise<NativeModel>;
  stepCount(): number;
  setStepCount(count: number): void;
  /** The peak of adapters is what they hold. */
  memory(): { bytes: number; peakBytes: number };
  close(): void;
  /** Of adapters only, like the next two. */
  merge(reversible: boolean): Promise<void>;
  unmerge(): Promise<void>;
  release(): Promise<void>;
}

/** A token of a request, or its failure. */
export interface NativeGeneratorEvent {
  key: number;
  index: number;
  token: number;
  logProb: number;
  /** -1 not yet, 0 length, 1 stop, 2 failed. */
  finish: number;
  fingerprint?: Int8Array;
  topTokens?: Int32Array;
  topLogProbs?: Float32Array;
  error?: Error;
}

/** The class Generator of the addon. */
export interface NativeGenerator {
  submit(
    key: number,
    request: NativeGenerateRequest,
    options: { fingerprint: FingerprintOptions | undefined; topCount: number },
  ): void;
  cancel(key: number): void;
  /** One slice of steps; whether requests are left. */
  drive(onEvents: (events: NativeGeneratorEvent[]) => void): Promise<boolean>;
  refresh(): Promise<void>;
  state(): GeneratorState;
  close(): Promise<void>;
}

/** Everything the addon exports; `native.test.ts` compares it with what the C++ really exports. */
export interface NativeBinding {
  Model: { prototype: NativeModel };
  Generator: { prototype: NativeGenerator };
  createModel(shape: ModelShape, options: ModelOptions): Promise<NativeModel>;
  createDeviceModel(
    shape: ModelShape,
    options: NativeDeviceOptions,
  ): Promise<{ model: NativeModel; places: DevicePlace[]; report: string }>;
  tensorTable(shape: ModelShape): TensorInfo[];
  tensorTableRoot(tensors: readonly TensorInfo[]): Uint8Array;
  initialParameters(shape: ModelShape, seed: bigint): Float32Array;
  sparseSize(
    tensors: readonly TensorInfo[],
    format: NativeFormat,
  ): { bodyBytes: number; keptMax: number };
  sha256(data: Uint8Array): Uint8Array;
  uniformAt(seed: Uint8Array, index: number): number;
  machine(): { cpuPath: string; defaultThreads: number };
  devices(): DeviceReport;
  compress(
    options: NativeFormat & {
      base: Float32Array;
      current: Float32Array;
      errorFeedback: Float32Array;
      tensors: readonly TensorInfo[];
      errorDecay: number;
      threads: number | undefined;
      body: Uint8Array;
    },
  ): Promise<void>;
  decode(
    body: Uint8Array,
    tensors: readonly TensorInfo[],
    format: NativeFormat,
  ): Promise<{ indices: Uint32Array; values: Float32Array }>;
  aggregate(
    options: NativeFormat & {
      updates: readonly Uint8Array[];
      weights: Float32Array;
      tensors: readonly TensorInfo[];
      rule: string;
      clipToMedianNorm: boolean;
      threads: number | undefined;
    },
  ): Promise<Uint8Array>;
  applyMerged(
    parameters: Float32Array,
    merged: Uint8Array,
    tensors: readonly TensorInfo[],
    outerLearningRate: number,
  ): Promise<{ nonFiniteTensors: number[] }>;
  applyUpdate(
    parameters: Float32Array,
    body: Uint8Array,
    tensors: readonly TensorInfo[],
    scale: number,
    format: NativeFormat,
  ): Promise<void>;
  packUpdate(
    body: Uint8Array,
    tensors: readonly TensorInfo[],
    options: NativeFormat & { threads: number | undefined },
  ): Promise<Uint8Array>;
  unpackUpdate(
    packed: Uint8Array,
    tensors: readonly TensorInfo[],
    options: NativeFormat & { threads: number | undefined },
    body: Uint8Array,
  ): Promise<void>;
  encodeDelta(
    base: Uint8Array,
    next: Uint8Array,
    options: { threads?: number },
  ): Promise<Uint8Array>;
  applyDelta(
    base: Uint8Array,
    delta: Uint8Array,
    next: Uint8Array,
    options: { threads?: number },
  ): Promise<void>;
  activationSize(shape: NativeActivation): number;
  encodeActivations(
    values: Float32Array,
    shape: NativeActivation,
    payload: Uint8Array,
  ): Promise<void>;
  decodeActivations(
    values: Float32Array,
    shape: NativeActivation,
    payload: Uint8Array,
  ): Promise<void>;
  projectionBasis(seed: bigint, rank: number, basis: Float32Array): Promise<void>;
  projectionEncode(
    projection: NativeProjection,
    x: Float32Array,
    tokens: Int32Array | undefined,
    z: Float32Array,
  ): Promise<void>;
  projectionDecode(
    projection: NativeProjection,
    z: Float32Array,
    tokens: Int32Array | undefined,
    y: Float32Array,
  ): Promise<void>;
  projectionEncodeBackward(
    projection: NativeProjection,
    gradients: NativeProjectionGradients & { dz: Float32Array; x: Float32Array; dx: Float32Array },
    tokens: Int32Array | undefined,
  ): Promise<void>;
  projectionDecodeBackward(
    projection: NativeProjection,
    gradients: NativeProjectionGradients & { dy: Float32Array; z: Float32Array; dz: Float32Array },
    tokens: Int32Array | undefined,
  ): Promise<void>;
  projectionStep(
    rank: number,
    options: { rate: number; decay: number },
    basis: Float32Array,
    gradient: Float32Array,
    momentum: Float32Array,
  ): Promise<void>;
  stateRoot(
    parameters: Float32Array,
    tensors: readonly TensorInfo[],
    root: Uint8Array,
  ): Promise<void>;
}

let loaded: NativeBinding | undefined;

/** The addon, loaded on first use. Throws COV_KERNELS_NOT_BUILT with the remedy when it is missing or does not load. */
export function native(): NativeBinding {
  loaded ??= loadAddon() as NativeBinding;
  return loaded;
}
