import type { Adapter } from "./adapter.ts";
import type { Trainable } from "./trainable.ts";
import type { AdapterOptions, ModelShape, TensorInfo } from "./types.ts";

/** A whole model, on the CPU or on CUDA devices: who trains with this takes either. */
export interface TrainableModel extends Pick<Trainable, keyof Trainable> {
  readonly shape: ModelShape;
  readonly tensors: readonly TensorInfo[];
  /** Low-rank adapters over this model, which stays frozen under their calls. A model may have several. */
  createAdapter(options: AdapterOptions): Promise<Adapter>;
  /** Bytes the model holds, of all its devices together, and the most it held, as of the end of the last call. */
  readonly memory: { bytes: number; peakBytes: number };
  /**
   * Gives the model up: the call under way is finished or cancelled, waiting ones reject with COV_KERNELS_CLOSED, as do
   * all later ones. Safe to call at any time and more than once.
   */
  close(): void;
}
