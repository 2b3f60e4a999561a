import {
  type DeviceInfo,
  DeviceModel,
  devices,
  KernelError,
  Model,
  type ModelShape,
  type TrainableModel,
} from "@covenant/kernels";
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

/** True for what {@link DeviceOptions.device} may be. */
export function isDevice(text: string): boolean {
  return /^(cpu|auto|cuda(:\d{1,4}(,\d{1,4})*)?)$/.test(text);
}

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
  const { devices: found, report } = devices();
  const indices = indicesOf(options.device);
  const missing = indices.filter((index) => index >= found.length);
  if (missing.length > 0) {
    const reason = found.length === 0 ? report : `there are ${found.map(nameOf).join(", ")}`;
    throw new CovenantError("COV_DEVICE_UNAVAILABLE", `no CUDA device ${missing[0]}: ${reason}`, {
      metadata: { device: options.device },
    });
  }
  const { deviceLayout: layout, compute } = options;
  return DeviceModel.create(shape, { devices: indices, layout, compute });
}

/** The devices of "cuda:0,1"; the first one where none is named. */
function indicesOf(device: string): number[] {
  const [, list] = device.split(":");
  return list === undefined ? [0] : list.split(",").map(Number);
}

function nameOf({ index, name }: DeviceInfo): string {
  return `${index} (${name})`;
}
