import { awaitKernel, KernelError } from "./errors.ts";
import { type NativeProjection, native } from "./native.ts";
import type { ProjectionOptions } from "./types.ts";

/**
 * A projection of activations into a subspace, as both ends of a pipeline cut have one: encode z = (x − E[token])·A,
 * decode y = z·Aᵀ + E[token]. The columns of the basis A are orthonormal; with a fixed basis nothing else is needed,
 * a learned one takes gradients from both ends and moves by {@link step}. Calls are jobs of one engine thread; buffers
 * handed in must stay untouched until the promise settles.
 */
export class Projection {
  readonly width: number;
  readonly rank: number;
  /** width × rank, row-major; to be written between calls. */
  readonly basis: Float32Array;
  /** What the backward calls add to; cleared by {@link step}. */
  readonly basisGradient: Float32Array;
  /** E, vocab × width; and what the backward calls add to, which is the caller's to apply and to clear. */
  readonly table: Float32Array | undefined;
  readonly tableGradient: Float32Array | undefined;
  readonly #momentum: Float32Array;
  readonly #threads: number | undefined;

  private constructor({ width, rank, table, threads }: ProjectionOptions) {
    for (const size of [width, rank]) {
      if (Number.isInteger(size) && size >= 1 && size <= 2 ** 20) continue;
      throw new KernelError(
        "COV_KERNELS_INVALID_ARGUMENT",
        `A projection of width ${width} and rank ${rank} is not possible.`,
      );
    }
    this.width = width;
    this.rank = rank;
    this.basis = new Float32Array(width * rank);
    this.basisGradient = new Float32Array(width * rank);
    this.#momentum = new Float32Array(width * rank);
    this.table = table;
    this.tableGradient = table && new Float32Array(table.length);
    this.#threads = threads;
  }

  /** With a random orthonormal basis, the same on every machine for a seed. */
  static create(options: ProjectionOptions): Promise<Projection> {
    return awaitKernel(async () => {
      const projection = new Projection(options);
      const { rank, basis } = projection;
      await native().projectionBasis(options.seed ?? 0n, rank, basis);
      return projection;
    });
  }

  /** z (rows × rank) of x (rows × width); a token for each row where there is a table. */
  encode(x: Float32Array, tokens?: Int32Array): Promise<Float32Array> {
    return awaitKernel(async () => {
      const z = new Float32Array((x.length / this.width) * this.rank);
      await native().projectionEncode(this.#native(), x, tokens, z);
      return z;
    });
  }

  /** y (rows × width) of z (rows × rank). */
  decode(z: Float32Array, tokens?: Int32Array): Promise<Float32Array> {
    return awaitKernel(async () => {
      const y = new Float32Array((z.length / this.rank) * this.width);
      await native().projectionDecode(this.#native(), z, tokens, y);
      return y;
    });
  }

  /** The receiver's end: dz of dy, given what was decoded; adds to the gradients unless `frozen`. */
  decodeBackward(
    dy: Float32Array,
    z: Float32Array,
    tokens?: Int32Array,
    { frozen = false }: { frozen?: boolean } = {},
  ): Promise<Float32Array> {
    return awaitKernel(async () => {
      const dz = new Float32Array(z.length);
      const gradients = { dy, z, dz, ...this.#gradients(frozen) };
      await native().projectionDecodeBackward(this.#native(), gradients, tokens);
      return dz;
    });
  }

  /** The sender's end: dx of dz, given what was encoded; adds to the gradients unless `frozen`. */
  encodeBackward(
    dz: Float32Array,
    x: Float32Array,
    tokens?: Int32Array,
    { frozen = false }: { frozen?: boolean } = {},
  ): Promise<Float32Array> {
    return awaitKernel(async () => {
      const dx = new Float32Array(x.length);
      const gradients = { dz, x, dx, ...this.#gradients(frozen) };
      await native().projectionEncodeBackward(this.#native(), gradients, tokens);
      return dx;
    });
  }

  /**
   * One step of the basis against its gradient along the Stiefel manifold, with momentum; clears the gradient. Rejects
   * with COV_KERNELS_NON_FINITE, and leaves all as it was, where the step is not finite.
   */
  step({ rate, decay = 0 }: { rate: number; decay?: number }): Promise<void> {
    return awaitKernel(async () => {
      const { rank, basis, basisGradient } = this;
      await native().projectionStep(rank, { rate, decay }, basis, basisGradient, this.#momentum);
      basisGradient.fill(0);
    });
  }

  #native(): NativeProjection {
    return { basis: this.basis, table: this.table, rank: this.rank, threads: this.#threads };
  }

  #gradients(frozen: boolean) {
    return {
      basisGradient: frozen ? undefined : this.basisGradient,
      tableGradient: frozen ? undefined : this.tableGradient,
    };
  }
}
