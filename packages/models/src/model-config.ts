// One model, two vocabularies: Hugging Face's names on the wire, shorter ones at the kernels.
import { create } from "@bufbuild/protobuf";
import { type ModelConfig, ModelConfigSchema } from "@covenant/contracts/common";
import type { ModelShape } from "@covenant/kernels";

/** A model's shape as messages carry it. */
export function modelConfigOf(shape: ModelShape): ModelConfig {
  return create(ModelConfigSchema, {
    vocabSize: shape.vocabSize,
    hiddenSize: shape.hiddenSize,
    intermediateSize: shape.intermediateSize,
    numHiddenLayers: shape.layerCount,
    numAttentionHeads: shape.headCount,
    numKeyValueHeads: shape.kvHeadCount,
    maxPositionEmbeddings: shape.maxPositions,
    ropeTheta: shape.ropeTheta,
    rmsNormEps: shape.rmsNormEps,
    tieWordEmbeddings: shape.tieWordEmbeddings,
  });
}

/** The shape that a message describes; the kernels check its bounds when a model is made of it. */
export function modelShapeOf(config: ModelConfig): ModelShape {
  return {
    vocabSize: config.vocabSize,
    hiddenSize: config.hiddenSize,
    intermediateSize: config.intermediateSize,
    layerCount: config.numHiddenLayers,
    headCount: config.numAttentionHeads,
    kvHeadCount: config.numKeyValueHeads,
    maxPositions: config.maxPositionEmbeddings,
    ropeTheta: config.ropeTheta,
    rmsNormEps: config.rmsNormEps,
    tieWordEmbeddings: config.tieWordEmbeddings,
  };
}
