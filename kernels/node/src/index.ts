export { Adapter } from "./adapter.ts";
export { applyDelta, decodeActivations, encodeActivations, encodeDelta } from "./codec.ts";
export { DeviceModel } from "./device-model.ts";
export { devices } from "./devices.ts";
export { KernelError, type KernelErrorCode, kernelErrorCodes } from "./errors.ts";
export { Generator } from "./generator.ts";
export { Model } from "./model.ts";
export { isPackedUpdate, packUpdate, unpackUpdate } from "./packed.ts";
export { Projection } from "./projection.ts";
export {
  aggregate,
  applyMerged,
  applyUpdate,
  compress,
  decode,
  sparseSize,
  stateRoot,
} from "./sparse.ts";
export { initialParameters, machine, tensorTable, tensorTableRoot } from "./tables.ts";
export type { TrainableModel } from "./trainable-model.ts";
export type * from "./types.ts";
export { adapterTargets } from "./types.ts";
