// Data sets: documents → tokens → end-of-text → samples of T + 1 tokens → shards of uint16, with hashes.
import { sha256 } from "@covenant/contracts";
import { DataError } from "./errors.ts";
import { splitText } from "./text-split.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Options of {@link buildDataSet}. */
export interface DataSetOptions {
  /** T: tokens a model is given at once. */
  sequenceLength: number;
  /** Samples per shard; the last shard of a side may have fewer. */
  shardSamples: number;
  /** Share of the text held out for evaluation, 0 to below 1. */
  heldOutShare: number;
}

/** A shard: `sampleCount` × (T + 1) tokens, uint16, little-endian. */
export interface DataShard {
  data: Uint8Array;
  sha256: Uint8Array;
  sampleCount: number;
}

/** A tokenised text, ready to be put into an object store. */
export interface DataSet {
  sequenceLength: number;
  train: DataShard[];
  heldOut: DataShard[];
  trainSampleCount: number;
  heldOutSampleCount: number;
  /** Bytes of text per scored token of the held-out shards: turns nats per token into bits per byte. */
  heldOutBytesPerToken: number;
}

const SAMPLES_MAX = 1 << 28;

/**
 * Builds shards; the same input gives the same bytes everywhere. A string is one document. Neighbouring samples
 * share one token, so that every token but the first is a target exactly once; a rest shorter than a sample is
 * dropped. Special tokens spelled out in documents stay text. `COV_DATA_TOO_SHORT` when a side has no sample.
 */
export function buildDataSet(
  text: string | readonly string[],
  tokenizer: Tokenizer,
  options: DataSetOptions,
): DataSet {
  const { sequenceLength, shardSamples, heldOutShare } = options;
  if (tokenizer.vocabSize > 0x10000) throw new RangeError("Shards hold token ids below 65536");
  if (!(sequenceLength >= 1 && shardSamples >= 1)) throw new RangeError("Lengths start at 1");
  const split = splitText(typeof text === "string" ? [text] : text, heldOutShare);
  const train = sampleTokens(split.train, tokenizer, sequenceLength);
  const heldOut = sampleTokens(split.heldOut, tokenizer, sequenceLength);
  if (train.length === 0 || (heldOutShare > 0 && heldOut.length === 0)) {
    const message = `The text is too short for samples of ${sequenceLength + 1} tokens`;
    throw new DataError("COV_DATA_TOO_SHORT", message);
  }
  return {
    sequenceLength,
    train: makeShards(train, shardSamples),
    heldOut: makeShards(heldOut, shardSamples),
    trainSampleCount: train.length,
    heldOutSampleCount: heldOut.length,
    heldOutBytesPerToken: bytesPerTarget(heldOut, tokenizer),
  };
}

/** Samples of T + 1 tokens as views of one token stream, each starting with the last token of the one before. */
function sampleTokens(pieces: string[], tokenizer: Tokenizer, sequenceLength: number) {
  const encoded = pieces.map((piece) => tokenizer.encode(piece, { special: false }));
  const stream = new Uint16Array(encoded.reduce((sum, ids) => sum + ids.length + 1, 0));
  let at = 0;
  for (const ids of encoded) {
    stream.set(ids, at);
    at += ids.length;
    stream[at++] = tokenizer.eosId;
  }
  const count = Math.max(0, Math.floor((stream.length - 1) / sequenceLength));
  if (count > SAMPLES_MAX) throw new RangeError(`More than ${SAMPLES_MAX} samples`);
  return Array.from({ length: count }, (_, i) =>
    stream.subarray(i * sequenceLength, (i + 1) * sequenceLength + 1),
  );
}

function makeShards(samples: readonly Uint16Array[], shardSamples: number): DataShard[] {
  const shards: DataShard[] = [];
  for (let first = 0; first < samples.length; first += shardSamples) {
    const part = samples.slice(first, first + shardSamples);
    const width = part[0]!.length;
    const data = new Uint8Array(part.length * width * 2);
    const view = new DataView(data.buffer);
    part.forEach((sample, i) => {
      sample.forEach((id, j) => {
        view.setUint16((i * width + j) * 2, id, true);
      });
    });
    shards.push({ data, sha256: sha256(data), sampleCount: part.length });
  }
  return shards;
}

function bytesPerTarget(samples: readonly Uint16Array[], tokenizer: Tokenizer): number {
  let bytes = 0;
  let targets = 0;
  for (const sample of samples) {
    for (const id of sample.subarray(1)) bytes += tokenizer.byteLength(id);
    targets += sample.length - 1;
  }
  return targets === 0 ? 0 : bytes / targets;
}
