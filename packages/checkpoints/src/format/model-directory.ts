// A model as a Hugging Face directory: parameters out to files, and back.
import { fromBfloat16, toBfloat16 } from "./bfloat16.ts";
import { CheckpointError } from "./errors.ts";
import {
  llamaTensors,
  type ModelShape,
  makeGenerationConfig,
  makeModelConfig,
  parseModelConfig,
  type TensorPlace,
  type TokenIds,
} from "./llama.ts";
import { type ModelCardFacts, makeModelCard } from "./model-card.ts";
import { readSafetensors, type SafeTensor, writeSafetensors } from "./safetensors.ts";

/** A file of a checkpoint; `path` is relative. */
export interface CheckpointFileData {
  path: string;
  data: Uint8Array;
}

/** Options of {@link exportCheckpoint}. */
export interface ExportOptions {
  /** How weights are stored. F32 is exact; BF16 rounds to nearest, ties to even. */
  dtype: "F32" | "BF16";
  card?: ModelCardFacts;
  /** Weights beyond this size are cut into several files, at tensor borders. */
  shardBytesMax?: number;
}

const SHARD_BYTES_MAX_DEFAULT = 1 << 30;
const JSON_BYTES_MAX = 64 << 20;
const TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json"];

/**
 * The directory of a model, small files first, weights in the order layers are loaded: what `from_pretrained` of
 * `transformers` opens. Files depend on the arguments alone, so equal models have equal checkpoints.
 */
export function exportCheckpoint(
  shape: ModelShape,
  parameters: Float32Array,
  tokenizerFiles: readonly CheckpointFileData[],
  options: ExportOptions,
): CheckpointFileData[] {
  const places = llamaTensors(shape);
  const last = places.at(-1)!;
  if (parameters.length !== last.offset + last.length) {
    throw new RangeError(
      `${parameters.length} parameters, the shape has ${last.offset + last.length}`,
    );
  }
  const ids = readTokenIds(tokenizerFiles);
  return [
    jsonFile("config.json", makeModelConfig(shape, options.dtype, ids)),
    jsonFile("generation_config.json", makeGenerationConfig(ids)),
    ...tokenizerFiles.filter(({ path }) => TOKENIZER_FILES.includes(path)),
    textFile("README.md", makeModelCard(shape, options.card ?? {})),
    ...weightFiles(places, parameters, options),
  ];
}

/** A model read back from its directory's files. */
export interface ImportedCheckpoint {
  shape: ModelShape;
  parameters: Float32Array;
  tokenizerFiles: CheckpointFileData[];
}

/**
 * Reads shape, parameters and tokenizer files. Weights may be F32 or BF16, in one or several safetensors files, and
 * must be exactly the tensors of the shape. Throws `CheckpointError`; nothing is allocated before sizes are checked.
 */
export function importCheckpoint(files: readonly CheckpointFileData[]): ImportedCheckpoint {
  const shape = parseModelConfig(readJson(files, "config.json"));
  const places = llamaTensors(shape);
  const weights = files.filter(({ path }) => /^[^/]+\.safetensors$/.test(path));
  const tensors = new Map<string, SafeTensor>();
  for (const { path, data } of weights) {
    for (const tensor of readSafetensors(data).tensors) {
      if (tensors.has(tensor.name))
        throw tensorError(`${tensor.name} is in several files (${path})`);
      tensors.set(tensor.name, tensor);
    }
  }
  // Some writers store the head of a tied model as well; it says nothing new.
  if (shape.tieWordEmbeddings) tensors.delete("lm_head.weight");
  for (const place of places) checkTensor(place, tensors.get(place.name));
  if (tensors.size !== places.length) {
    const known = new Set(places.map(({ name }) => name));
    throw tensorError(`unknown tensor ${[...tensors.keys()].find((name) => !known.has(name))}`);
  }
  const last = places.at(-1)!;
  const parameters = new Float32Array(last.offset + last.length);
  for (const { name, offset, length } of places) {
    readTensor(tensors.get(name)!, parameters.subarray(offset, offset + length));
  }
  const tokenizerFiles = files.filter(({ path }) => TOKENIZER_FILES.includes(path));
  return { shape, parameters, tokenizerFiles };
}

function weightFiles(
  places: readonly TensorPlace[],
  parameters: Float32Array,
  options: ExportOptions,
): CheckpointFileData[] {
  const { dtype } = options;
  const shards = cutIntoShards(places, options);
  const write = (part: readonly TensorPlace[]): Uint8Array =>
    writeSafetensors(
      part.map(({ name, shape, offset, length }) => {
        const values = parameters.subarray(offset, offset + length);
        return {
          name,
          dtype,
          shape,
          data: dtype === "F32" ? floatBytes(values) : toBfloat16(values),
        };
      }),
      { format: "pt" },
    );
  if (shards.length === 1) return [{ path: "model.safetensors", data: write(places) }];
  const digits = (value: number): string => String(value).padStart(5, "0");
  const names = shards.map(
    (_, i) => `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`,
  );
  const weightMap = shards.flatMap((part, i) => part.map(({ name }) => [name, names[i]]));
  const totalSize = places.reduce((sum, { length }) => sum + length, 0) * (dtype === "F32" ? 4 : 2);
  const index = {
    metadata: { total_size: totalSize },
    weight_map: Object.fromEntries(weightMap),
  };
  return [
    jsonFile("model.safetensors.index.json", index),
    ...shards.map((part, i) => ({ path: names[i]!, data: write(part) })),
  ];
}

function cutIntoShards(places: readonly TensorPlace[], options: ExportOptions): TensorPlace[][] {
  const bytesMax = options.shardBytesMax ?? SHARD_BYTES_MAX_DEFAULT;
  const width = options.dtype === "F32" ? 4 : 2;
  const shards: TensorPlace[][] = [[]];
  let bytes = 0;
  for (const place of places) {
    if (bytes > 0 && bytes + place.length * width > bytesMax) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(place);
    bytes += place.length * width;
  }
  return shards;
}

function checkTensor(place: TensorPlace, tensor: SafeTensor | undefined): void {
  if (!tensor) throw tensorError(`${place.name} is missing`);
  if (tensor.dtype !== "F32" && tensor.dtype !== "BF16") {
    throw tensorError(`${place.name} is ${tensor.dtype}, not F32 or BF16`);
  }
  const same =
    tensor.shape.length === place.shape.length &&
    tensor.shape.every((size, i) => size === place.shape[i]);
  if (!same) throw tensorError(`${place.name} is ${tensor.shape.join("×")}`);
}

function readTensor(tensor: SafeTensor, target: Float32Array): void {
  if (tensor.dtype === "BF16") fromBfloat16(tensor.data, target);
  else new Uint8Array(target.buffer, target.byteOffset, target.byteLength).set(tensor.data);
}

/** Bytes of floats as they are in memory: little-endian on every platform that the kernels are built for. */
function floatBytes(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** The ids that end text: the end-of-text token named in tokenizer_config.json, and the end of a chat turn. */
function readTokenIds(files: readonly CheckpointFileData[]): TokenIds {
  if (!files.some(({ path }) => path === "tokenizer.json")) return { stop: [] };
  const tokenizer = readJson(files, "tokenizer.json") as { added_tokens?: unknown };
  const added = Array.isArray(tokenizer.added_tokens) ? tokenizer.added_tokens : [];
  const idOf = (content: string): number | undefined => {
    const id: unknown = added.find((token) => token?.content === content)?.id;
    return Number.isSafeInteger(id) ? (id as number) : undefined;
  };
  const hasConfig = files.some(({ path }) => path === "tokenizer_config.json");
  const config = hasConfig ? readJson(files, "tokenizer_config.json") : {};
  const name = (config as { eos_token?: unknown }).eos_token;
  const eos = idOf(typeof name === "string" ? name : "<|endoftext|>");
  return { eos, stop: [eos, idOf("<|end|>")].filter((id) => id !== undefined) };
}

function readJson(files: readonly CheckpointFileData[], path: string): object {
  const file = files.find((candidate) => candidate.path === path);
  if (!file || file.data.byteLength > JSON_BYTES_MAX) {
    throw new CheckpointError("COV_CHECKPOINT_FILES_INVALID", `${path} is missing or too large`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.data));
  } catch (error) {
    throw new CheckpointError("COV_CHECKPOINT_FILES_INVALID", `${path} is not JSON`, {
      cause: error,
    });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new CheckpointError("COV_CHECKPOINT_FILES_INVALID", `${path} is not a JSON object`);
}

function jsonFile(path: string, content: object): CheckpointFileData {
  return textFile(path, `${JSON.stringify(content, undefined, 2)}\n`);
}

function textFile(path: string, text: string): CheckpointFileData {
  return { path, data: new TextEncoder().encode(text) };
}

function tensorError(what: string): CheckpointError {
  return new CheckpointError(
    "COV_CHECKPOINT_TENSORS_INVALID",
    `Weights do not fit the model: ${what}`,
  );
}
