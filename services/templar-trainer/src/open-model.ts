import {
  DeviceModel,
  KernelError,
  Model,
  type ModelShape,
  type TrainableModel,
} from "@covenant/kernels";
import { devicesOf, missingDevice } from "@covenant/models";
import { CovenantError, type Logger } from "@covenant/runtime";

/** Where a peer trains: the part of its configuration that says so. */
export type DeviceOptions = {
  /** "cpu", "auto", "cuda", or indices as in "cuda:0,1". */
  device: string;
  deviceLayout: "data-parallel" | "layer-split";
  compute: "f32" | "bf16";
  /** Of the engine on the CPU. */
  threads: number;
};

/**
 * The model that the peer's inner steps run on. With "auto" a machine whose first CUDA device cannot be used trains on the CPU, and the
 * log says why; with "cuda" that is COV_DEVICE_UNAVAILABLE.
 */
export async function openModel(
  shape: ModelShape,
  options: DeviceOptions,
  { logger }: { logger: Logger },
): Promise<TrainableModel> {
  const { device, compute, threads } = options;
  if (device !== "cpu") {
    try {
      const model = await openDevices(shape, options);
      logger.info({ device, compute }, `training on CUDA: ${model.report}`);
      return model;
    } catch (error) {
      if (device !== "auto" || !isUnavailable(error)) throw error;
      logger.warn({ device, code: error.code }, `training on the CPU: ${error.message}`);
    }
  }
  return Model.create(shape, { threads, compute });
}

/** Reasons to train on the CPU instead; anything else is a fault. */
function isUnavailable(error: unknown): error is CovenantError | KernelError {
  if (error instanceof CovenantError) return error.code === "COV_DEVICE_UNAVAILABLE";
  const codes: unknown[] = ["COV_KERNELS_UNSUPPORTED", "COV_KERNELS_OUT_OF_MEMORY"];
  return error instanceof KernelError && codes.includes(error.code);
}

async function openDevices(shape: ModelShape, options: DeviceOptions): Promise<DeviceModel> {
  const indices = devicesOf(options.device) ?? [];
  const missing = missingDevice(indices);
  if (missing !== undefined) {
    throw new CovenantError("COV_DEVICE_UNAVAILABLE", missing, {
      metadata: { device: options.device },
    });
  }
  const { deviceLayout: layout, compute } = options;
  return DeviceModel.create(shape, { devices: indices, layout, compute });
}
