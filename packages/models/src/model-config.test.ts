import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ModelConfigSchema } from "@covenant/contracts/common";
import { modelConfigOf, modelShapeOf } from "./model-config.ts";

test("a shape survives the wire, every field of it", () => {
  const shape = {
    vocabSize: 320,
    hiddenSize: 64,
    intermediateSize: 128,
    layerCount: 3,
    headCount: 4,
    kvHeadCount: 2,
    maxPositions: 96,
    ropeTheta: 500_000,
    rmsNormEps: 1e-6,
    tieWordEmbeddings: true,
  };
  const bytes = toBinary(ModelConfigSchema, modelConfigOf(shape));
  assert.deepEqual(modelShapeOf(fromBinary(ModelConfigSchema, bytes)), shape);
});
