import { applyUpdate, type TrainableModel } from "@covenant/kernels";
import { type SampleSource, sequenceLosses } from "@covenant/models";
import type { RunSetup } from "@covenant/runs";
import { codecMode } from "@covenant/sparseloco";
import { Serial } from "./serial.ts";

/** How losses are measured. */
export type EvaluatorOptions = {
  setup: RunSetup;
  /** Share of an update that is applied to measure it. */
  evaluationScale: number;
  batchSize: number;
};

/** Measures losses; one forward pass at a time on the one model. */
export class Evaluator {
  readonly #options: EvaluatorOptions;
  readonly #model: TrainableModel;
  readonly #source: SampleSource;
  readonly #serial = new Serial();
  #updated: Float32Array | undefined;

  constructor(options: EvaluatorOptions, modules: { model: TrainableModel; source: SampleSource }) {
    this.#options = options;
    this.#model = modules.model;
    this.#source = modules.source;
  }

  /** Loss of each training sample under the parameters, nats per token. */
  losses(parameters: Float32Array, samples: readonly number[]): Promise<number[]> {
    return this.#serial.run(async () => {
      await this.#model.write("parameters", parameters);
      return this.#measure(this.#source, samples);
    });
  }

  /** Loss of each training sample after the configured share of an update was applied. */
  lossesAfter(
    parameters: Float32Array,
    body: Uint8Array,
    samples: readonly number[],
  ): Promise<number[]> {
    const { setup, evaluationScale } = this.#options;
    const outer = setup.run.outer!;
    return this.#serial.run(async () => {
      this.#updated ??= new Float32Array(parameters.length);
      this.#updated.set(parameters);
      const scale = evaluationScale * outer.learningRate;
      const codec = { keepPerChunk: outer.keepPerChunk, mode: codecMode(outer.codec) };
      await applyUpdate(this.#updated, body, setup.tensors, scale, codec);
      await this.#model.write("parameters", this.#updated);
      return this.#measure(this.#source, samples);
    });
  }

  /** Mean loss over the first samples of another source, nats per token: held-out text. */
  meanLoss(parameters: Float32Array, source: SampleSource, sampleCount: number): Promise<number> {
    const count = Math.min(sampleCount, source.sampleCount);
    return this.#serial.run(async () => {
      await this.#model.write("parameters", parameters);
      const samples = Array.from({ length: count }, (_, index) => index);
      const losses = await this.#measure(source, samples);
      return losses.reduce((sum, loss) => sum + loss, 0) / count;
    });
  }

  async #measure(source: SampleSource, samples: readonly number[]): Promise<number[]> {
    const { batchSize } = this.#options;
    const losses: number[] = [];
    for (let at = 0; at < samples.length; at += batchSize) {
      const batch = source.batch(samples.slice(at, at + batchSize));
      const rows = await sequenceLosses(this.#model, batch);
      losses.push(...rows.map(({ lossSum, tokens }) => lossSum / tokens));
    }
    return losses;
  }
}
