/**
 * Who is to blame for a failure; decides whether and how often a task is restarted.
 * - PREEMPTED: the node was asked to give the task up (drain, priority).
 * - USER_ERROR: the workload itself ended with an error or was killed from outside the mesh.
 * - NODE_LOST: its node went away.
 * - PLATFORM: the mesh could not start or keep it (spawn failed, start not confirmed).
 */
export type FailureClass = "PREEMPTED" | "USER_ERROR" | "NODE_LOST" | "PLATFORM";

/** Limits of restarting; all durations in milliseconds. */
export interface RestartPolicy {
  readonly backoffBaseMs: number;
  readonly backoffMaxMs: number;
  /** Restarts after PREEMPTED or NODE_LOST; these do not use up the task's own budget. */
  readonly lossRestartsMax: number;
  /** Restarts after PLATFORM failures. */
  readonly platformRestartsMax: number;
}

/** Failures of one task so far, by class. */
export type FailureCounts = Readonly<Record<FailureClass, number>>;

/** No failures. */
export const noFailures: FailureCounts = { PREEMPTED: 0, USER_ERROR: 0, NODE_LOST: 0, PLATFORM: 0 };

/**
 * Exit status 78 (EX_CONFIG in sysexits.h): the configuration is wrong. Starting again with the same
 * configuration cannot help, so such a task is never restarted.
 */
export const configurationErrorExitCode = 78;

/** What to do with a failed task. */
export type RestartDecision =
  | { readonly restart: true; readonly delayMs: number; readonly reason: string }
  | { readonly restart: false; readonly reason: string };

/**
 * Decides by cause. `counts` includes the failure at hand; `restartsMax` is the task's own budget.
 * Backoff doubles with each failure of the class: base · 2^(n−1), capped.
 */
export function decideRestart(
  failure: { readonly class: FailureClass; readonly exitCode: number | undefined },
  counts: FailureCounts,
  restartsMax: number,
  policy: RestartPolicy,
): RestartDecision {
  if (failure.class === "USER_ERROR" && failure.exitCode === configurationErrorExitCode) {
    return { restart: false, reason: "its configuration is wrong; a restart cannot help" };
  }
  const { used, limit } = budget(failure.class, counts, restartsMax, policy);
  if (used > limit) {
    return { restart: false, reason: `restarts used up (${limit} for ${failure.class})` };
  }
  const exponent = Math.min(used - 1, 30);
  const delayMs = Math.min(policy.backoffMaxMs, policy.backoffBaseMs * 2 ** exponent);
  return { restart: true, delayMs, reason: `restart ${used} of at most ${limit}` };
}

function budget(
  failureClass: FailureClass,
  counts: FailureCounts,
  restartsMax: number,
  policy: RestartPolicy,
): { used: number; limit: number } {
  switch (failureClass) {
    case "PREEMPTED":
    case "NODE_LOST":
      return { used: counts.PREEMPTED + counts.NODE_LOST, limit: policy.lossRestartsMax };
    case "PLATFORM":
      return { used: counts.PLATFORM, limit: policy.platformRestartsMax };
    case "USER_ERROR":
      return { used: counts.USER_ERROR, limit: restartsMax };
  }
}
