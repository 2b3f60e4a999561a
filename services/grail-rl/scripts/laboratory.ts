// What the measuring scripts share: a small model, pre-trained here and now on the demonstration text.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { initialParameters, Model, type ModelShape } from "@covenant/kernels";
import { runInnerSteps, Tokenizer, trainTokenizer } from "@covenant/models";

/** The demonstration's model: 0.84 M parameters. */
export const shape: ModelShape = {
  vocabSize: 512,
  hiddenSize: 128,
  intermediateSize: 352,
  layerCount: 4,
  headCount: 4,
  kvHeadCount: 4,
  maxPositions: 256,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};

const sequenceLength = 128;

/** Where pre-trained weights are kept between runs of the scripts. */
export const cacheFolder = path.resolve(".covenant", "laboratory");

/** Prints one line of a report. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function demonstrationText(): string {
  return readFileSync(new URL("../../../data/shakespeare.txt", import.meta.url), "utf8");
}

/** Tokenizer of the demonstration text, trained once. */
export function laboratoryTokenizer(): Tokenizer {
  const file = path.join(cacheFolder, "tokenizer.json");
  if (!existsSync(file)) {
    mkdirSync(cacheFolder, { recursive: true });
    const json = trainTokenizer(demonstrationText(), { vocabSize: shape.vocabSize });
    writeFileSync(file, JSON.stringify(json));
  }
  return Tokenizer.fromJson(readFileSync(file, "utf8"));
}

/** Weights after so many steps of pre-training on the demonstration text; kept for the next call. */
export async function pretrained(
  tokenizer: Tokenizer,
  options: { seed: number; steps: number; threads: number },
): Promise<Float32Array> {
  const file = path.join(cacheFolder, `pretrained-${options.seed}-${options.steps}.bin`);
  if (existsSync(file)) {
    const bytes = readFileSync(file);
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  }
  const started = performance.now();
  const data = trainingTokens(tokenizer);
  const model = await Model.create(shape, { threads: options.threads });
  model.parameters.set(initialParameters(shape, BigInt(options.seed)));
  const samples = Math.floor((data.length - 1) / sequenceLength);
  const batches = Array.from({ length: options.steps }, (_, step) => {
    const tokens = new Int32Array(16 * sequenceLength);
    const targets = new Int32Array(16 * sequenceLength);
    for (let row = 0; row < 16; row++) {
      const sample = ((step * 16 + row) * 7919 + options.seed * 104_729) % samples;
      const from = sample * sequenceLength;
      tokens.set(data.subarray(from, from + sequenceLength), row * sequenceLength);
      targets.set(data.subarray(from + 1, from + 1 + sequenceLength), row * sequenceLength);
    }
    return { tokens, targets, sequences: 16, sequenceLength };
  });
  const result = await runInnerSteps(model, {
    batches,
    optimizer: { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, gradientClip: 1 },
    schedule: {
      peakLearningRate: 3e-3,
      warmupSteps: 20,
      totalSteps: options.steps,
      finalLearningRateRatio: 0.1,
      decay: "linear",
    },
  });
  const seconds = (performance.now() - started) / 1000;
  say(
    `pre-trained ${options.steps} steps in ${seconds.toFixed(1)} s, loss ${result.lastLoss.toFixed(3)}`,
  );
  const parameters = Float32Array.from(model.parameters);
  model.close();
  writeFileSync(file, new Uint8Array(parameters.buffer));
  return parameters;
}

function trainingTokens(tokenizer: Tokenizer): Int32Array {
  return tokenizer.encode(demonstrationText().slice(0, 400_000));
}
