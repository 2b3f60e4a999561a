// Trains on the first CUDA device, on the CPU where there is none: node kernels/examples/devices.ts
import assert from "node:assert/strict";
import {
  DeviceModel,
  devices,
  initialParameters,
  Model,
  type ModelShape,
  type TrainableModel,
} from "@covenant/kernels";

const shape: ModelShape = {
  vocabSize: 64,
  hiddenSize: 32,
  intermediateSize: 64,
  layerCount: 2,
  headCount: 4,
  kvHeadCount: 2,
  maxPositions: 32,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};
const parameters = initialParameters(shape, 1n);
const tokens = Int32Array.from({ length: 32 }, (_, i) => (i * 7) % 64);
const batch = {
  tokens,
  targets: tokens.map((token) => (token + 7) % 64),
  sequences: 1,
  sequenceLength: 32,
};
const optimizer = {
  learningRate: 1e-2,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0,
  gradientClip: 1,
};
const losses: number[] = [];

const { devices: found, report } = devices(); // report says why there are none
const model: TrainableModel =
  found.length > 0
    ? await DeviceModel.create(shape, { parameters, memoryLimitBytes: found[0]!.freeBytes })
    : await Model.create(shape, { parameters });
for (let step = 0; step < 30; step++) losses.push((await model.trainStep(batch, optimizer)).loss);
const learned = await model.read("parameters"); // a copy, wherever they are
const moments = await model.read("firstMoment", { count: 1000 });
model.close();

assert.ok(report.length > 0 && moments.length === 1000);
assert.ok(losses.at(-1)! < 0.5 * losses[0]!);
assert.notDeepEqual(learned, parameters);
process.stdout.write("learned\n");
