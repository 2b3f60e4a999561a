// The small model behind the vectors: the same bits everywhere, and logits far from flat.
import { readFileSync } from "node:fs";
import {
  type CheckpointFileData,
  exportCheckpoint,
  llamaTensors,
  type ModelShape,
  parameterCount,
} from "@covenant/checkpoints";
import { uniformAt } from "@covenant/contracts";
import { Tokenizer, trainTokenizer } from "@covenant/models";

const text = readFileSync(new URL("../../../data/shakespeare.txt", import.meta.url), "utf8");

/** Tokenizer of the reference model: 300 ids. */
export const referenceTokenizer = Tokenizer.fromJson(
  trainTokenizer(text.slice(0, 20_000), { vocabSize: 300 }),
);

/** Shape of the reference model: grouped heads, tied embeddings. */
export const referenceShape: ModelShape = {
  vocabSize: referenceTokenizer.vocabSize,
  hiddenSize: 16,
  intermediateSize: 28,
  layerCount: 2,
  headCount: 4,
  kvHeadCount: 2,
  maxPositions: 128,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};

/** Parameters from Philox: uniform in ±0.4, norms in 1 ± 0.2. */
export function referenceParameters(): Float32Array {
  const seed = new Uint8Array(32).fill(3);
  const parameters = new Float32Array(parameterCount(referenceShape));
  for (const { shape, offset, length } of llamaTensors(referenceShape)) {
    for (let i = offset; i < offset + length; i++) {
      const centred = uniformAt(seed, i) - 0.5;
      parameters[i] = shape.length === 1 ? 1 + 0.4 * centred : 0.8 * centred;
    }
  }
  return parameters;
}

/** The reference model as a Hugging Face directory. */
export function referenceFiles(dtype: "F32" | "BF16"): CheckpointFileData[] {
  const card = { runId: "reference", stage: "pretrain, round 0", licence: "apache-2.0" };
  return exportCheckpoint(referenceShape, referenceParameters(), referenceTokenizer.toFiles(), {
    dtype,
    card,
  });
}
