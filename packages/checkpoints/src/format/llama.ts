// The LLaMA family as Hugging Face names it: shape, tensor table, config.json.
import { CheckpointError } from "./errors.ts";

/** Shape of a model; field for field that of the kernels. */
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

/** A tensor's place in the flat parameter buffer; offset and length in floats. */
export interface TensorPlace {
  name: string;
  shape: readonly number[];
  offset: number;
  length: number;
}

/** Sizes beyond these are refused before anything is computed from them. */
const SIZE_MAX = 1 << 24;
const LAYERS_MAX = 1024;
const PARAMETERS_MAX = 2 ** 40;

/** Throws `COV_CHECKPOINT_MODEL_UNSUPPORTED` unless every size is positive, in bounds, and they fit each other. */
export function checkShape(shape: ModelShape): void {
  const sizes = [
    shape.vocabSize,
    shape.hiddenSize,
    shape.intermediateSize,
    shape.headCount,
    shape.kvHeadCount,
    shape.maxPositions,
  ];
  const within = (value: number, max: number): boolean =>
    Number.isSafeInteger(value) && value >= 1 && value <= max;
  const good =
    sizes.every((size) => within(size, SIZE_MAX)) &&
    within(shape.layerCount, LAYERS_MAX) &&
    shape.hiddenSize % shape.headCount === 0 &&
    shape.headCount % shape.kvHeadCount === 0 &&
    shape.ropeTheta >= 1 &&
    shape.ropeTheta <= 1e12 &&
    shape.rmsNormEps > 0 &&
    shape.rmsNormEps <= 1;
  if (!good) throw unsupported("the sizes of the model are out of bounds or do not fit each other");
}

/** All tensors in the order of the flat parameter buffer: embedding, layers, final norm, head unless tied. */
export function llamaTensors(shape: ModelShape): TensorPlace[] {
  checkShape(shape);
  const { hiddenSize: d, intermediateSize: f, vocabSize } = shape;
  const kv = (d / shape.headCount) * shape.kvHeadCount;
  const tensors: TensorPlace[] = [];
  let offset = 0;
  const add = (name: string, ...dims: number[]): void => {
    const length = dims.reduce((product, size) => product * size, 1);
    tensors.push({ name: `${name}.weight`, shape: dims, offset, length });
    offset += length;
  };
  add("model.embed_tokens", vocabSize, d);
  for (let i = 0; i < shape.layerCount; i++) {
    const layer = `model.layers.${i}`;
    add(`${layer}.self_attn.q_proj`, d, d);
    add(`${layer}.self_attn.k_proj`, kv, d);
    add(`${layer}.self_attn.v_proj`, kv, d);
    add(`${layer}.self_attn.o_proj`, d, d);
    add(`${layer}.mlp.gate_proj`, f, d);
    add(`${layer}.mlp.up_proj`, f, d);
    add(`${layer}.mlp.down_proj`, d, f);
    add(`${layer}.input_layernorm`, d);
    add(`${layer}.post_attention_layernorm`, d);
  }
  add("model.norm", d);
  if (!shape.tieWordEmbeddings) add("lm_head", vocabSize, d);
  if (offset > PARAMETERS_MAX) throw unsupported("more parameters than can be addressed");
  return tensors;
}

/** Number of floats in the flat parameter buffer. */
export function parameterCount(shape: ModelShape): number {
  const last = llamaTensors(shape).at(-1)!;
  return last.offset + last.length;
}

/** Token ids that configuration files name. */
export interface TokenIds {
  eos?: number | undefined;
  /** All ids that end a completion. */
  stop: number[];
}

/** The content of config.json. Fields that `transformers` renamed are written under both names. */
export function makeModelConfig(shape: ModelShape, dtype: "F32" | "BF16", ids: TokenIds): object {
  const dtypeName = dtype === "F32" ? "float32" : "bfloat16";
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: shape.vocabSize,
    hidden_size: shape.hiddenSize,
    intermediate_size: shape.intermediateSize,
    num_hidden_layers: shape.layerCount,
    num_attention_heads: shape.headCount,
    num_key_value_heads: shape.kvHeadCount,
    head_dim: shape.hiddenSize / shape.headCount,
    max_position_embeddings: shape.maxPositions,
    rope_theta: shape.ropeTheta,
    rope_scaling: null,
    rms_norm_eps: shape.rmsNormEps,
    tie_word_embeddings: shape.tieWordEmbeddings,
    hidden_act: "silu",
    attention_bias: false,
    attention_dropout: 0,
    mlp_bias: false,
    initializer_range: 0.02,
    use_cache: true,
    bos_token_id: null,
    eos_token_id: ids.eos ?? null,
    pad_token_id: ids.eos ?? null,
    dtype: dtypeName,
    torch_dtype: dtypeName,
  };
}

/** The content of generation_config.json. */
export function makeGenerationConfig(ids: TokenIds): object {
  return {
    bos_token_id: null,
    eos_token_id: ids.stop.length > 0 ? ids.stop : null,
    pad_token_id: ids.eos ?? null,
    do_sample: true,
    temperature: 1,
  };
}

/**
 * Reads the shape out of a parsed config.json. Throws `COV_CHECKPOINT_MODEL_UNSUPPORTED` for anything that would
 * make this project's kernels compute something else than `transformers` does.
 */
export function parseModelConfig(value: unknown): ModelShape {
  if (typeof value !== "object" || value === null) throw unsupported("config.json is no object");
  const config = value as Record<string, unknown>;
  const fixed = (key: string, ...allowed: unknown[]): void => {
    if (!allowed.includes(config[key] ?? null)) {
      throw unsupported(`${key} is ${JSON.stringify(config[key])?.slice(0, 80)}`);
    }
  };
  fixed("model_type", "llama");
  fixed("hidden_act", "silu", null);
  fixed("attention_bias", false, null);
  fixed("mlp_bias", false, null);
  fixed("pretraining_tp", 1, null);
  fixed("rope_scaling", null);
  const rope = (config.rope_parameters ?? {}) as Record<string, unknown>;
  if (rope.rope_type !== undefined && rope.rope_type !== "default") {
    throw unsupported(`rope_type is ${JSON.stringify(rope.rope_type)?.slice(0, 80)}`);
  }
  const size = (key: string, otherwise = Number.NaN): number => Number(config[key] ?? otherwise);
  const heads = size("num_attention_heads");
  const shape: ModelShape = {
    vocabSize: size("vocab_size"),
    hiddenSize: size("hidden_size"),
    intermediateSize: size("intermediate_size"),
    layerCount: size("num_hidden_layers"),
    headCount: heads,
    kvHeadCount: size("num_key_value_heads", heads),
    maxPositions: size("max_position_embeddings"),
    ropeTheta: Number(rope.rope_theta ?? config.rope_theta ?? 10_000),
    rmsNormEps: size("rms_norm_eps", 1e-6),
    tieWordEmbeddings: config.tie_word_embeddings === true,
  };
  checkShape(shape);
  fixed("head_dim", shape.hiddenSize / shape.headCount, null);
  return shape;
}

function unsupported(what: string): CheckpointError {
  return new CheckpointError("COV_CHECKPOINT_MODEL_UNSUPPORTED", `This model is not read: ${what}`);
}
