import { awaitKernel, callKernel } from "./errors.ts";
import * as generation from "./generation.ts";
import { Generator } from "./generator.ts";
import { type NativeModel, native } from "./native.ts";
import { tensorTable } from "./tables.ts";
import type {
  Batch,
  ForwardOptions,
  ForwardResult,
  GenerateOptions,
  GenerateRequest,
  GenerateResult,
  GeneratorOptions,
  ModelOptions,
  ModelShape,
  OptimizerOptions,
  ReplayOptions,
  ReplayRequest,
  ReplayResult,
  TensorInfo,
} from "./types.ts";

/** The live buffers of a model, in the addon's numbering. */
const buffers = { parameters: 0, gradients: 1, firstMoment: 2, secondMoment: 3 } as const;

/**
 * A model with an engine thread of its own. Calls queue up and run in the order they were made; none blocks
 * JavaScript. Buffers handed in must stay untouched until the promise settles.
 */
export class Model {
  readonly shape: ModelShape;
  readonly tensors: readonly TensorInfo[];
  readonly #native: NativeModel;
  readonly #views = new Map<number, Float32Array>();

  private constructor(native: NativeModel, shape: ModelShape) {
    this.#native = native;
    this.shape = shape;
    this.tensors = tensorTable(shape);
  }

  /** Allocates the parameters. Rejects with COV_KERNELS_MEMORY_LIMIT or _OUT_OF_MEMORY when they do not fit. */
  static create(shape: ModelShape, options: ModelOptions = {}): Promise<Model> {
    return awaitKernel(async () => {
      return new Model(await native().createModel(shape, options), { ...shape });
    });
  }

  /**
   * Live view of the parameters: what is written here is what the next call uses. Not to be touched while a call is
   * under way. A view stays valid after close() for as long as it is referenced.
   */
  get parameters(): Float32Array {
    return this.#view(buffers.parameters);
  }

  /** Live view like {@link parameters}; allocated on first use, which waits for the call under way. */
  get gradients(): Float32Array {
    return this.#view(buffers.gradients);
  }

  /** Live view like {@link gradients}. */
  get firstMoment(): Float32Array {
    return this.#view(buffers.firstMoment);
  }

  /** Live view like {@link gradients}. */
  get secondMoment(): Float32Array {
    return this.#view(buffers.secondMoment);
  }

  /** Optimizer steps done, used by AdamW's bias correction; set it when restoring a state, between calls. */
  get optimizerStepCount(): number {
    return this.#native.stepCount();
  }

  set optimizerStepCount(count: number) {
    callKernel(() => this.#native.setStepCount(count));
  }

  /** Bytes the model holds, and the most it held, as of the end of the last call. */
  get memory(): { bytes: number; peakBytes: number } {
    return this.#native.memory();
  }

  /** Log-probability of every target and entropy of every position. */
  forward(batch: Batch, options: ForwardOptions = {}): Promise<ForwardResult> {
    return awaitKernel(async () => {
      const { keepActivations = false, topLogProbs: topCount = 0, temperature = 1 } = options;
      const positions = batch.tokens.length;
      const result: ForwardResult = {
        logProbs: new Float32Array(positions),
        entropy: new Float32Array(positions),
      };
      if (topCount > 0) {
        result.topTokens = new Int32Array(positions * topCount);
        result.topLogProbs = new Float32Array(positions * topCount);
      }
      const { topTokens, topLogProbs } = result;
      await this.#native.forward(
        batch,
        { keepActivations, topCount, temperature },
        { logProbs: result.logProbs, entropy: result.entropy, topTokens, topLogProbs },
      );
      return result;
    });
  }

  /**
   * Adds to the gradients of a loss whose derivative by the log-probability of each position of the last kept
   * forward is `coefficients`. Consumes the kept activations.
   */
  backward(coefficients: Float32Array): Promise<void> {
    return awaitKernel(() => this.#native.backward(coefficients));
  }

  /** One AdamW step from the gradients, then clears them. The norm is that before clipping. */
  optimizerStep(options: OptimizerOptions): Promise<{ gradientNorm: number }> {
    return awaitKernel(() => this.#native.optimizerStep(options));
  }

  /** Forward, mean negative log-likelihood over scored positions (nats), backward and step as one job. */
  trainStep(
    batch: Batch,
    optimizer: OptimizerOptions,
  ): Promise<{ loss: number; gradientNorm: number }> {
    return awaitKernel(() => this.#native.trainStep(batch, optimizer));
  }

  /** Completions by the bound sampler. What a request yields does not depend on the other requests. */
  generate(
    requests: readonly GenerateRequest[],
    options: GenerateOptions = {},
  ): Promise<GenerateResult[]> {
    return awaitKernel(() =>
      generation.generate(this.#native, this.shape.maxPositions, requests, options),
    );
  }

  /** A long-lived generator for concurrent callers, with a snapshot of the parameters. */
  createGenerator(options: GeneratorOptions = {}): Promise<Generator> {
    return awaitKernel(() => Generator.create(this.#native, options));
  }

  /** What the bound sampler would have drawn where a claimed completion stands, by one prefill. */
  replay(requests: readonly ReplayRequest[], options: ReplayOptions = {}): Promise<ReplayResult[]> {
    return awaitKernel(() => generation.replay(this.#native, requests, options));
  }

  /**
   * Gives the model up: the call under way is finished or cancelled, waiting ones reject with COV_KERNELS_CLOSED, as do
   * all later ones. Safe to call at any time and more than once.
   */
  close(): void {
    this.#native.close();
    this.#views.clear();
  }

  #view(which: 0 | 1 | 2 | 3): Float32Array {
    const known = this.#views.get(which);
    if (known) return known;
    const view = callKernel(() => this.#native.view(which));
    this.#views.set(which, view);
    return view;
  }
}
