// Reads samples out of shards that were checked against their hashes.
import { bytesEqual, sha256 } from "@covenant/contracts";
import type { Batch } from "@covenant/kernels";
import { DataError } from "./errors.ts";

/** A shard as it arrived, with what the run's configuration says about it. */
export interface ShardContent {
  data: Uint8Array;
  sha256: Uint8Array;
  sampleCount: number;
}

/** Options of {@link SampleSource}. */
export interface SampleSourceOptions {
  /** T. */
  sequenceLength: number;
  /** Ids must be below it: kernels index embeddings with them. */
  vocabSize: number;
}

const BATCH_SEQUENCES_MAX = 65_536;

/** Samples of a data set by index, 0 to {@link SampleSource.sampleCount} - 1, shards in order. */
export class SampleSource {
  readonly sampleCount: number;
  readonly sequenceLength: number;
  readonly #shards: { firstSample: number; tokens: Uint16Array }[] = [];

  /** Throws `COV_DATA_SHARD_MISMATCH` when a shard is not exactly what its hash and count say. */
  constructor(shards: readonly ShardContent[], options: SampleSourceOptions) {
    this.sequenceLength = options.sequenceLength;
    let firstSample = 0;
    shards.forEach((shard, index) => {
      this.#shards.push({ firstSample, tokens: openShard(shard, index, options) });
      firstSample += shard.sampleCount;
    });
    this.sampleCount = firstSample;
  }

  /** The samples of these indices as one batch: tokens 0 to T-1 in, tokens 1 to T as targets. */
  batch(indices: ArrayLike<number>): Batch {
    if (indices.length === 0 || indices.length > BATCH_SEQUENCES_MAX) {
      throw new RangeError(`A batch has 1 to ${BATCH_SEQUENCES_MAX} samples`);
    }
    const width = this.sequenceLength;
    const tokens = new Int32Array(indices.length * width);
    const targets = new Int32Array(indices.length * width);
    for (let row = 0; row < indices.length; row++) {
      const sample = this.#sample(indices[row]!);
      tokens.set(sample.subarray(0, width), row * width);
      targets.set(sample.subarray(1), row * width);
    }
    return { tokens, targets, sequences: indices.length, sequenceLength: width };
  }

  /** Batches over consecutive samples from `first` to before `end`; the last one may be smaller. */
  *batches(batchSize: number, first = 0, end = this.sampleCount): Generator<Batch> {
    for (let at = first; at < end; at += batchSize) {
      const count = Math.min(batchSize, end - at);
      yield this.batch(Array.from({ length: count }, (_, i) => at + i));
    }
  }

  #sample(index: number): Uint16Array {
    if (!Number.isInteger(index) || index < 0 || index >= this.sampleCount) {
      throw new RangeError(`Sample ${index} is not below ${this.sampleCount}`);
    }
    let low = 0;
    let high = this.#shards.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#shards[middle]!.firstSample <= index) low = middle;
      else high = middle - 1;
    }
    const { firstSample, tokens } = this.#shards[low]!;
    const width = this.sequenceLength + 1;
    return tokens.subarray((index - firstSample) * width, (index - firstSample + 1) * width);
  }
}

function openShard(shard: ShardContent, index: number, options: SampleSourceOptions): Uint16Array {
  const { data, sampleCount } = shard;
  const mismatch = (message: string): DataError =>
    new DataError("COV_DATA_SHARD_MISMATCH", `Shard ${index}: ${message}`);
  const count = sampleCount * (options.sequenceLength + 1);
  if (sampleCount < 1 || data.byteLength !== count * 2) {
    throw mismatch(`${data.byteLength} bytes are not ${sampleCount} samples`);
  }
  if (!bytesEqual(sha256(data), shard.sha256)) throw mismatch("content differs from its SHA-256");
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const tokens = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    tokens[i] = view.getUint16(i * 2, true);
    if (tokens[i]! >= options.vocabSize)
      throw mismatch(`token id ${tokens[i]} is not in the model`);
  }
  return tokens;
}
