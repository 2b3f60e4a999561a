// CUDA for tests on any machine: the emulated library has the CUDA kernels compiled for the CPU.
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { devices } from "./devices.ts";

const name = `libcovenant_cuda_emulated_library.${process.platform === "darwin" ? "dylib" : "so"}`;
const library = fileURLToPath(new URL(`../../build/${name}`, import.meta.url));
const remedy = 'run "npm run build:kernels -- --emulated"';

/** The environment of a process that is to have so many emulated devices. */
export function emulatedEnvironment(count: number): Record<string, string> {
  return { COVENANT_CUDA_LIBRARY: library, COVENANT_EMULATED_DEVICES: String(count) };
}

/**
 * Gives this process so many emulated devices, unless COVENANT_CUDA_LIBRARY names a library already. To be called
 * before CUDA is first used. Returns why a test has to be skipped, if it has to.
 */
export function emulateDevices(count: number): string | undefined {
  if (process.env.COVENANT_CUDA_LIBRARY === undefined) {
    if (!existsSync(library)) return `the emulated CUDA library is not built; ${remedy}`;
    Object.assign(process.env, emulatedEnvironment(count));
  }
  const { report, devices: found } = devices();
  if (report.includes("belongs to another build")) return `${report}; ${remedy}`;
  return found.length > 0 && found.length < count ? `it takes ${count} CUDA devices` : undefined;
}
