import {
  DeviceModel,
  KernelError,
  Model,
  type ModelShape,
  type TrainableModel,
} from "@covenant/kernels";
import { CovenantError, type Logger } from "@covenant/runtime";
import { devicesOf, missingDevice } from "./device-setting.ts";

/** Where a model computes: the part of a service's configuration that says so. */
export type DeviceOptions = {
  /** "cpu", "auto", "cuda", or indices as in "cuda:0,1". */
  device: string;
  deviceLayout: "data-parallel" | "layer-split";
  /** Default: "f32". */
  compute?: "f32" | "bf16";
  /** Of the engine on the CPU. Default: as many as there are cores. */
  threads?: number | undefined;
};

/**
 * The model that a service computes with; its parameters are zeros where none are given. With "auto" a machine whose first CUDA device cannot be used computes on the CPU, and the log
 * says why; with "cuda" that is COV_DEVICE_UNAVAILABLE.
 */
export async function openModel(
  shape: ModelShape,
  options: DeviceOptions,
  { logger, parameters }: { logger: Logger; parameters?: Float32Array },
): Promise<TrainableModel> {
  const { device, deviceLayout: layout, threads, compute = "f32" } = options;
  const start = { compute, ...(parameters !== undefined && { parameters }) };
  if (device !== "cpu") {
    try {
      const devices = presentDevices(device);
      const opened = await DeviceModel.create(shape, { ...start, devices, layout });
      logger.info({ device, compute }, `computing on CUDA: ${opened.report}`);
      return opened;
    } catch (error) {
      if (device !== "auto" || !isUnavailable(error)) throw error;
      logger.warn({ device, code: error.code }, `computing on the CPU: ${error.message}`);
    }
  }
  return Model.create(shape, { ...start, ...(threads !== undefined && { threads }) });
}

/** Reasons to take the CPU instead; anything else is a fault. */
function isUnavailable(error: unknown): error is CovenantError | KernelError {
  if (error instanceof CovenantError) return error.code === "COV_DEVICE_UNAVAILABLE";
  const codes: unknown[] = ["COV_KERNELS_UNSUPPORTED", "COV_KERNELS_OUT_OF_MEMORY"];
  return error instanceof KernelError && codes.includes(error.code);
}

function presentDevices(device: string): number[] {
  const indices = devicesOf(device) ?? [];
  const missing = missingDevice(indices);
  if (missing === undefined) return indices;
  throw new CovenantError("COV_DEVICE_UNAVAILABLE", missing, { metadata: { device } });
}
