import { cancellation, throwIfAborted } from "./cancellation.ts";
import { awaitKernel, callKernel, KernelError, oneOf } from "./errors.ts";
import * as generation from "./generation.ts";
import { Generator } from "./generator.ts";
import type { NativeBuffer, NativeModel } from "./native.ts";
import type {
  Batch,
  BufferName,
  BufferRange,
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

const buffers: Record<BufferName, NativeBuffer> = {
  parameters: 0,
  gradients: 1,
  firstMoment: 2,
  secondMoment: 3,
};

/** A buffer in the addon's numbering. */
export const numberOf = (buffer: BufferName) => oneOf("buffer", buffers, buffer);

/** Floats of zeros that are written at once. */
const zerosMax = 1 << 20;

/**
 * What models and adapters have in common, wherever they compute: flat buffers that learn, and calls on the model's
 * engine thread.
 */
export abstract class Trainable {
  protected readonly native: NativeModel;
  readonly #maxPositions: number;

  protected constructor(native: NativeModel, maxPositions: number) {
    this.native = native;
    this.#maxPositions = maxPositions;
  }

  /** A copy of a buffer or of a part of it, as the calls made before leave it. */
  read(buffer: BufferName, { offset = 0, count }: BufferRange = {}): Promise<Float32Array> {
    return awaitKernel(async () => {
      const rest = Math.max(0, this.native.length() - offset);
      const values = new Float32Array(checkedCount(count ?? rest, rest));
      await this.native.read(numberOf(buffer), offset, values);
      return values;
    });
  }

  /** Copies values to a buffer, from float `offset` on, for the calls made after. */
  write(
    buffer: BufferName,
    values: Float32Array,
    { offset = 0 }: { offset?: number } = {},
  ): Promise<void> {
    return awaitKernel(() => this.native.write(numberOf(buffer), offset, values));
  }

  /** Sets a buffer to zero, without an array of its length. */
  clear(buffer: BufferName): Promise<void> {
    return awaitKernel(async () => {
      const length = this.native.length();
      const zeros = new Float32Array(Math.min(length, zerosMax));
      for (let offset = 0; offset < length; offset += zerosMax) {
        const part = zeros.subarray(0, Math.min(zerosMax, length - offset));
        await this.native.write(numberOf(buffer), offset, part);
      }
    });
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

  /**
   * Forward, mean negative log-likelihood over scored positions (nats), backward and step as one job; aborting it helps
   * until it begins.
   */
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

  /** What the bound sampler would have drawn where a claimed completion stands, by one prefill. */
  replay(requests: readonly ReplayRequest[], options: ReplayOptions = {}): Promise<ReplayResult[]> {
    return awaitKernel(() => generation.replay(this.native, requests, options));
  }

  /** A long-lived generator for concurrent callers, with a snapshot of the parameters. */
  createGenerator(options: GeneratorOptions = {}): Promise<Generator> {
    return awaitKernel(() => Generator.create(this.native, options));
  }
}

/** A count of floats that an array can be made for; what is more than there is to read is an error of the kernels. */
function checkedCount(count: number, rest: number): number {
  if (Number.isInteger(count) && count >= 0 && count <= rest) return count;
  throw new KernelError(
    "COV_KERNELS_OUT_OF_RANGE",
    `${count} floats cannot be read where the buffer has ${rest} left.`,
  );
}
