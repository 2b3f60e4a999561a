import { Adapter } from "./adapter.ts";
import { awaitKernel } from "./errors.ts";
import { HostTrainable } from "./host-trainable.ts";
import { type NativeModel, native } from "./native.ts";
import { tensorTable } from "./tables.ts";
import type { TrainableModel } from "./trainable-model.ts";
import type { AdapterOptions, ModelOptions, ModelShape, TensorInfo } from "./types.ts";

/**
 * A model with an engine thread of its own. Calls queue up and run in the order they were made; none blocks
 * JavaScript. Buffers handed in must stay untouched until the promise settles.
 */
export class Model extends HostTrainable implements TrainableModel {
  readonly shape: ModelShape;
  readonly tensors: readonly TensorInfo[];

  private constructor(native: NativeModel, shape: ModelShape) {
    super(native, shape.maxPositions);
    this.shape = shape;
    this.tensors = tensorTable(shape);
  }

  /** Allocates the parameters. Rejects with COV_KERNELS_MEMORY_LIMIT or _OUT_OF_MEMORY when they do not fit. */
  static create(shape: ModelShape, options: ModelOptions = {}): Promise<Model> {
    return awaitKernel(async () => {
      return new Model(await native().createModel(shape, options), { ...shape });
    });
  }

  /** Bytes the model holds, adapters and generators included, and the most it held, as of the end of the last call. */
  get memory(): { bytes: number; peakBytes: number } {
    return this.native.memory();
  }

  /** See {@link TrainableModel.createAdapter}. */
  createAdapter(options: AdapterOptions): Promise<Adapter> {
    return awaitKernel(() => Adapter.create(this.native, this.shape, options));
  }

  /** See {@link TrainableModel.close}. */
  close(): void {
    this.native.close();
    this.dropViews();
  }
}
