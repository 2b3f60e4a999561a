import { cancellation, throwIfAborted } from "./cancellation.ts";
import { awaitKernel, callKernel } from "./errors.ts";
import * as generation from "./generation.ts";
import { Generator } from "./generator.ts";
import type { NativeModel } from "./native.ts";
import type {
  Batch,
  ForwardOptions,
  ForwardResult,
  GenerateOptions,
  GenerateRequest,
  GenerateResult,
  GeneratorOptions,
  JobOptions,
  OptimizerOptions,
  ReplayOptions,
  ReplayRequest,
  ReplayResult,
} from "./types.ts";

/** The live buffers, in the addon's numbering. */
const buffers = { parameters: 0, gradients: 1, firstMoment: 2, secondMoment: 3 } as const;

/** What models and adapters have in common: flat buffers that learn, and calls on the model's engine thread. */
export abstract class Trainable {
  protected readonly native: NativeModel;
  readonly #maxPositions: number;
  readonly #views = new Map<number, Float32Array>();

  protected constructor(native: NativeModel, maxPositions: number) {
    this.native = native;
    this.#maxPositions = maxPositions;
  }

  /**
   * Live view of the parameters: what is written here is what the next call uses. Not to be touched while a call is
   * under way. A view stays valid after its owner is given up for as long as it is referenced.
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
    return this.native.stepCount();
  }

  set optimizerStepCount(count: number) {
    callKernel(() => this.native.setStepCount(count));
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
      await this.native.forward(
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
    return awaitKernel(() => this.native.backward(coefficients));
  }

  /** One AdamW step from the gradients, then clears them. The norm is that before clipping. */
  optimizerStep(options: OptimizerOptions): Promise<{ gradientNorm: number }> {
    return awaitKernel(() => this.native.optimizerStep(options));
  }

  /** Forward, mean negative log-likelihood over scored positions (nats), backward and step as one job; aborting it helps until it begins. */
  trainStep(
    batch: Batch,
    optimizer: OptimizerOptions,
    { signal }: JobOptions = {},
  ): Promise<{ loss: number; gradientNorm: number }> {
    return awaitKernel(async () => {
      throwIfAborted(signal);
      const cancel = cancellation(signal);
      try {
        return await this.native.trainStep(batch, optimizer, { cancel: cancel.flag });
      } finally {
        cancel.release();
      }
    });
  }

  /** Completions by the bound sampler. What a request yields does not depend on the other requests. */
  generate(
    requests: readonly GenerateRequest[],
    options: GenerateOptions = {},
  ): Promise<GenerateResult[]> {
    return awaitKernel(() =>
      generation.generate(this.native, this.#maxPositions, requests, options),
    );
  }

  /** A long-lived generator for concurrent callers, with a snapshot of the parameters. */
  createGenerator(options: GeneratorOptions = {}): Promise<Generator> {
    return awaitKernel(() => Generator.create(this.native, options));
  }

  /** What the bound sampler would have drawn where a claimed completion stands, by one prefill. */
  replay(requests: readonly ReplayRequest[], options: ReplayOptions = {}): Promise<ReplayResult[]> {
    return awaitKernel(() => generation.replay(this.native, requests, options));
  }

  /** Forgets the views, so that their memory can go. */
  protected dropViews(): void {
    this.#views.clear();
  }

  #view(which: 0 | 1 | 2 | 3): Float32Array {
    const known = this.#views.get(which);
    if (known) return known;
    const view = callKernel(() => this.native.view(which));
    this.#views.set(which, view);
    return view;
  }
}
