import { Adapter } from "./adapter.ts";
import { awaitKernel } from "./errors.ts";
import { type NativeModel, native } from "./native.ts";
import { tensorTable } from "./tables.ts";
import { Trainable } from "./trainable.ts";
import type { TrainableModel } from "./trainable-model.ts";
import type {
  AdapterOptions,
  DeviceModelOptions,
  DevicePlace,
  ModelShape,
  TensorInfo,
} from "./types.ts";

/** Devices that share the layers of one replica. */
function stagesOf({ devices = [0], layout = "data-parallel" }: DeviceModelOptions): number {
  if (typeof layout === "object") return layout.stages;
  return layout === "layer-split" ? devices.length : 1;
}

/**
 * A model on one CUDA device, or spread over several, with an engine thread of its own. It takes the calls of `Model`
 * that {@link TrainableModel} has; its buffers are on the devices, so that they are read and written by copies. In fp32
 * on one device, or on several that split the layers, every result has the bits of `Model`. Replicas share out the
 * requests of `generate` and `replay`, whose results are those of one device.
 */
export class DeviceModel extends Trainable implements TrainableModel {
  readonly shape: ModelShape;
  readonly tensors: readonly TensorInfo[];
  /** The devices in the order given, and the layers of each. */
  readonly places: readonly DevicePlace[];
  /** One sentence: where the model is, and what carries data between devices. */
  readonly report: string;

  private constructor(
    native: NativeModel,
    shape: ModelShape,
    { places, report }: { places: DevicePlace[]; report: string },
  ) {
    super(native, shape.maxPositions);
    this.shape = shape;
    this.tensors = tensorTable(shape);
    this.places = places;
    this.report = report;
  }

  /**
   * Allocates the parameters on the devices. Rejects with COV_KERNELS_UNSUPPORTED and the reason where CUDA is not
   * available, and with COV_KERNELS_OUT_OF_RANGE when there is no such device; `devices()` says what there is.
   */
  static create(shape: ModelShape, options: DeviceModelOptions = {}): Promise<DeviceModel> {
    return awaitKernel(async () => {
      const { parameters, memoryLimitBytes, compute, devices = [0] } = options;
      const made = await native().createDeviceModel(shape, {
        devices,
        stages: stagesOf(options),
        parameters,
        memoryLimitBytes,
        compute,
        vendorProducts: options.products === "cublaslt",
        nccl: options.collectives === "nccl",
      });
      return new DeviceModel(made.model, { ...shape }, made);
    });
  }

  /** See {@link TrainableModel.createAdapter}. */
  createAdapter(options: AdapterOptions): Promise<Adapter> {
    return awaitKernel(() => Adapter.create(this.native, this.shape, options));
  }

  /** See {@link TrainableModel.memory}; memory of the devices. */
  get memory(): { bytes: number; peakBytes: number } {
    return this.native.memory();
  }

  /** See {@link TrainableModel.close}. */
  close(): void {
    this.native.close();
  }
}
