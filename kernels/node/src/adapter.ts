import { awaitKernel, KernelError, oneOf } from "./errors.ts";
import { HostTrainable } from "./host-trainable.ts";
import type { NativeModel } from "./native.ts";
import {
  type AdapterOptions,
  type AdapterTarget,
  adapterTargets,
  type ModelShape,
} from "./types.ts";

/** The addon's bit of each target. */
const bits = Object.fromEntries(adapterTargets.map((target, at) => [target, 1 << at]));

/** The addon's bits of the targets. */
function bitsOf(targets: readonly AdapterTarget[]): number {
  return targets.reduce((all, target) => all | oneOf("adapter target", bits, target), 0);
}

/**
 * Low-rank adapters of a model: W' = W + (alpha / rank) B A. Its calls are those of the model with W' for W, and train
 * A and B alone; those of the model itself and of its other adapters know nothing of it. Calls of all of them queue up
 * on the model's engine thread. A kept forward is lost when another of them runs before the backward. Adapters of a
 * `DeviceModel` are on its devices: no live views (COV_KERNELS_UNSUPPORTED).
 */
export class Adapter extends HostTrainable {
  readonly rank: number;
  readonly alpha: number;
  readonly targets: readonly AdapterTarget[];
  #released = false;

  private constructor(native: NativeModel, shape: ModelShape, options: Required<AdapterOptions>) {
    super(native, shape.maxPositions);
    this.rank = options.rank;
    this.alpha = options.alpha;
    this.targets = [...options.targets];
  }

  /** Model.createAdapter over the addon. */
  static async create(
    model: NativeModel,
    shape: ModelShape,
    options: AdapterOptions,
  ): Promise<Adapter> {
    const { rank, alpha, targets = adapterTargets, seed = 0n } = options;
    const made = await model.createAdapter({ rank, alpha, targets: bitsOf(targets), seed });
    return new Adapter(made, shape, { rank, alpha, targets, seed });
  }

  /** Bytes the adapters hold, as of the end of the last call. They count towards the model's limit. */
  get memory(): { bytes: number } {
    return { bytes: this.native.memory().bytes };
  }

  /**
   * Adds the adapters to the model's own parameters. For good, B becomes zero and can be trained on. Reversibly, a copy
   * of what changes is kept for {@link unmerge}, and until then the adapters cannot be trained.
   */
  merge({ reversible = false }: { reversible?: boolean } = {}): Promise<void> {
    return awaitKernel(() => this.native.merge(reversible));
  }

  /** The model's parameters are what they were before the reversible merge; what was merged last comes first. */
  unmerge(): Promise<void> {
    return awaitKernel(() => this.native.unmerge());
  }

  /**
   * Gives the adapters up after the calls that wait already; later ones reject with COV_KERNELS_CLOSED. Their memory is
   * free when no view of it is left. Safe to call more than once.
   */
  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    this.dropViews();
    try {
      await awaitKernel(() => this.native.release());
    } catch (error) {
      // With its model closed, nothing is left to give up.
      if (!(error instanceof KernelError && error.code === "COV_KERNELS_CLOSED")) throw error;
    }
  }
}
