import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBfloat16, toBfloat16 } from "./bfloat16.ts";
import { llamaTensors, type ModelShape, parameterCount } from "./llama.ts";
import { type CheckpointFileData, exportCheckpoint, importCheckpoint } from "./model-directory.ts";
import { readSafetensors } from "./safetensors.ts";

const shape: ModelShape = {
  vocabSize: 20,
  hiddenSize: 8,
  intermediateSize: 12,
  layerCount: 2,
  headCount: 4,
  kvHeadCount: 2,
  maxPositions: 16,
  ropeTheta: 10000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};
const text = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const json = (files: CheckpointFileData[], path: string) =>
  JSON.parse(new TextDecoder().decode(files.find((file) => file.path === path)?.data));
const tokenizerFiles = [
  {
    path: "tokenizer.json",
    data: text({
      added_tokens: [
        { id: 0, content: "<|endoftext|>" },
        { id: 3, content: "<|end|>" },
      ],
    }),
  },
  { path: "tokenizer_config.json", data: text({ eos_token: "<|endoftext|>" }) },
];
const parametersOf = (of: ModelShape): Float32Array =>
  Float32Array.from({ length: parameterCount(of) }, (_, i) => Math.fround(Math.sin(i) * 1.7));

test("F32 comes back bit for bit, tied or not, in one file or several", () => {
  for (const tieWordEmbeddings of [true, false]) {
    for (const shardBytesMax of [1 << 30, 2000, 1]) {
      const variant = { ...shape, tieWordEmbeddings };
      const parameters = parametersOf(variant);
      const files = exportCheckpoint(variant, parameters, tokenizerFiles, {
        dtype: "F32",
        shardBytesMax,
      });
      const again = importCheckpoint(files);
      assert.deepEqual(again, { shape: variant, parameters, tokenizerFiles });
      assert.deepEqual(
        exportCheckpoint(variant, parameters, tokenizerFiles, { dtype: "F32", shardBytesMax }),
        files,
      );
    }
  }
});

test("several files carry an index that names every tensor's file", () => {
  const files = exportCheckpoint(shape, parametersOf(shape), [], {
    dtype: "F32",
    shardBytesMax: 2000,
  });
  const index = json(files, "model.safetensors.index.json");
  const names = llamaTensors(shape).map(({ name }) => name);
  assert.deepEqual(Object.keys(index.weight_map), names);
  assert.equal(index.metadata.total_size, parameterCount(shape) * 4);
  for (const [name, path] of Object.entries(index.weight_map)) {
    const file = files.find((candidate) => candidate.path === path);
    assert.ok(file && readSafetensors(file.data).tensors.some((tensor) => tensor.name === name));
  }
});

test("BF16 comes back as the rounded values", () => {
  const parameters = parametersOf(shape);
  const again = importCheckpoint(exportCheckpoint(shape, parameters, [], { dtype: "BF16" }));
  const rounded = new Float32Array(parameters.length);
  fromBfloat16(toBfloat16(parameters), rounded);
  assert.deepEqual(again.parameters, rounded);
  assert.notDeepEqual(again.parameters, parameters);
});

test("configuration names the tokens that end text", () => {
  const files = exportCheckpoint(shape, parametersOf(shape), tokenizerFiles, { dtype: "F32" });
  assert.equal(json(files, "config.json").eos_token_id, 0);
  assert.deepEqual(json(files, "generation_config.json").eos_token_id, [0, 3]);
  assert.equal(json(files, "config.json").num_key_value_heads, 2);
});

test("models that would compute something else are refused", () => {
  const files = exportCheckpoint(shape, parametersOf(shape), [], { dtype: "F32" });
  const withConfig = (changes: object): CheckpointFileData[] =>
    files.map((file) =>
      file.path === "config.json"
        ? { ...file, data: text({ ...json(files, "config.json"), ...changes }) }
        : file,
    );
  const refusals = [
    { model_type: "gpt2" },
    { hidden_act: "gelu" },
    { attention_bias: true },
    { rope_scaling: { rope_type: "yarn", factor: 2 } },
    { rope_parameters: { rope_type: "yarn" } },
    { head_dim: 16 },
    { num_key_value_heads: 3 },
    { hidden_size: -8 },
    { hidden_size: 1e300 },
    { num_hidden_layers: 1e9 },
    { vocab_size: "many" },
    { rms_norm_eps: 0 },
  ];
  for (const changes of refusals) {
    const code = { code: "COV_CHECKPOINT_MODEL_UNSUPPORTED" };
    assert.throws(() => importCheckpoint(withConfig(changes)), code, JSON.stringify(changes));
  }
  const renamed = withConfig({ rope_theta: undefined, rope_parameters: { rope_theta: 500 } });
  assert.equal(importCheckpoint(renamed).shape.ropeTheta, 500);
});

test("weights that do not fit the configuration are refused", () => {
  const files = exportCheckpoint(shape, parametersOf(shape), [], { dtype: "F32" });
  const deeper = { ...shape, layerCount: 3 };
  const others = exportCheckpoint(deeper, parametersOf(deeper), [], { dtype: "F32" });
  const mix = (config: CheckpointFileData[], weights: CheckpointFileData[]) => [
    ...config.filter(({ path }) => path.endsWith(".json")),
    ...weights.filter(({ path }) => path.endsWith(".safetensors")),
  ];
  const wider = exportCheckpoint(
    { ...shape, vocabSize: 21 },
    parametersOf({ ...shape, vocabSize: 21 }),
    [],
    {
      dtype: "F32",
    },
  );
  const twice = [...files, { path: "copy.safetensors", data: files.at(-1)!.data }];
  for (const broken of [
    mix(files, others),
    mix(others, files),
    mix(files, wider),
    twice,
    mix(files, []),
  ]) {
    assert.throws(() => importCheckpoint(broken), { code: "COV_CHECKPOINT_TENSORS_INVALID" });
  }
  assert.throws(() => importCheckpoint([]), { code: "COV_CHECKPOINT_FILES_INVALID" });
  const notJson = [{ path: "config.json", data: new Uint8Array([0xff]) }];
  assert.throws(() => importCheckpoint(notJson), { code: "COV_CHECKPOINT_FILES_INVALID" });
});
