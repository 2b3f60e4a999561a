// Adapters of a frozen model and a learned projection, from TypeScript: node kernels/examples/adapters.ts
import assert from "node:assert/strict";
import { initialParameters, Model, type ModelShape, Projection } from "@covenant/kernels";

const shape: ModelShape = {
  vocabSize: 64,
  hiddenSize: 64,
  intermediateSize: 160,
  layerCount: 2,
  headCount: 4,
  kvHeadCount: 2,
  maxPositions: 64,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};
// As large as after training.
const parameters = initialParameters(shape, 1n).map((value) => (value === 1 ? 1 : 10 * value));
const model = await Model.create(shape, { parameters });
const tokens = Int32Array.from({ length: 64 }, (_, i) => (i * 7) % 64);
const targets = tokens.map((token) => (token + 7) % 64);
const batch = { tokens, targets, sequences: 1, sequenceLength: 64 };
const optimizer = {
  learningRate: 1e-2,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0,
  gradientClip: 1,
};
const request = {
  prompt: tokens.slice(0, 4),
  maxNewTokens: 8,
  temperature: 0,
  topK: 0,
  topP: 1,
  stopTokens: [],
  samplingSeed: new Uint8Array(32),
};

const adapter = await model.createAdapter({ rank: 8, alpha: 16, targets: ["q", "v", "down"] });
for (let step = 0; step < 100; step++) await adapter.trainStep(batch, optimizer);
const [adapted] = await adapter.generate([request]);
await adapter.merge({ reversible: true });
const [merged] = await model.generate([request]); // the base says the same now
await adapter.unmerge(); // and has its own bits again
await adapter.release();

assert.deepEqual(merged, adapted);
assert.deepEqual(adapted!.tokens, tokens.slice(4, 12));
assert.deepEqual(model.parameters, parameters);
model.close();

const rows = 16;
const x = Float32Array.from({ length: rows * 64 }, (_, i) => ((i * 37) % 101) / 101 - 0.5);
const cut = await Projection.create({ width: 64, rank: 8 });
const errors: number[] = [];
for (let step = 0; step < 20; step++) {
  const z = await cut.encode(x); // what the sender sends
  const y = await cut.decode(z); // what the receiver gets
  const dy = y.map((value, i) => (value - x[i]!) / rows); // of the loss, here the squared error
  const dz = await cut.decodeBackward(dy, z); // at the receiver
  await cut.encodeBackward(dz, x); // at the sender
  await cut.step({ rate: 0.5, decay: 0.9 }); // both ends move the basis alike
  errors.push(dy.reduce((sum, value) => sum + value * value, 0));
}

assert.ok(errors.at(-1)! < 0.5 * errors[0]!);
process.stdout.write("learned\n");
