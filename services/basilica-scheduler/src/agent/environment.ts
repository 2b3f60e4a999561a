const passedNames = new Set([
  "PATH",
  "HOME",
  "LANG",
  "TZ",
  "TMPDIR",
  // Where the libraries of kernels/ are, and what they compute with.
  "LD_LIBRARY_PATH",
  "COVENANT_CPU_PATH",
  "COVENANT_CUBLASLT_LIBRARY",
  "COVENANT_CUDA_GRAPHS",
  "COVENANT_CUDA_LIBRARY",
  "COVENANT_EMULATED_DEVICES",
  "COVENANT_NCCL_LIBRARY",
]);
const passedPrefixes = ["OTEL_", "CUDA_", "NCCL_", "NVIDIA_"];

/**
 * What workloads see of the agent's environment: where programs, libraries and devices are and how telemetry is sent,
 * and nothing that may be the agent's own secret.
 */
export function passedEnvironment(env: NodeJS.ProcessEnv): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined) continue;
    if (passedNames.has(name) || passedPrefixes.some((prefix) => name.startsWith(prefix)))
      passed[name] = value;
  }
  return passed;
}
