const passedNames = new Set(["PATH", "HOME", "LANG", "TZ", "TMPDIR"]);

/**
 * What workloads see of the agent's environment: where programs are and how telemetry is sent, and
 * nothing that may be the agent's own secret.
 */
export function passedEnvironment(env: NodeJS.ProcessEnv): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && (passedNames.has(name) || name.startsWith("OTEL_")))
      passed[name] = value;
  }
  return passed;
}
