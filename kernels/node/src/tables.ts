import { callKernel } from "./errors.ts";
import { native } from "./native.ts";
import type { ModelShape, TensorInfo } from "./types.ts";

/** The tensors of a shape in Hugging Face LLaMA names and order; tied embeddings have no `lm_head.weight`. */
export function tensorTable(shape: ModelShape): TensorInfo[] {
  return callKernel(() => native().tensorTable(shape));
}

/** SHA-256 of the lines "name\tdim0xdim1\n". Equal for two peers exactly when they mean the same model. */
export function tensorTableRoot(tensors: readonly TensorInfo[]): Uint8Array {
  return callKernel(() => native().tensorTableRoot(tensors));
}

/**
 * Initial parameters of a shape, the same bits on every machine: deviation 0.02 (residual projections scaled by
 * 1/√(2·layers)), norms 1. `seed` from 0 to 2⁶⁴ − 1.
 */
export function initialParameters(shape: ModelShape, seed: bigint): Float32Array {
  return callKernel(() => native().initialParameters(shape, seed));
}

/** The code path chosen for this processor ("amx", "avx512bf16", "avx512", "avx2" or "portable") and the threads a model gets by default. */
export function machine(): { cpuPath: string; defaultThreads: number } {
  return callKernel(() => native().machine());
}
