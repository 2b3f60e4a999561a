import { callKernel } from "./errors.ts";
import { native } from "./native.ts";
import type { DeviceReport } from "./types.ts";

/** The CUDA devices of this machine; when there are none, `report` says why in one sentence. */
export function devices(): DeviceReport {
  return callKernel(() => native().devices());
}
