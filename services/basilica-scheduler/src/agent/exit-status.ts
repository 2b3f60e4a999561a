import { constants } from "node:os";
import type { TaskEnd } from "./task-directory.ts";

/** Exit statuses that a shell gives when it could not run the command at all (POSIX). */
const notExecutable = 126;
const notFound = 127;

/**
 * What an exit status means. `status` is undefined when the whole process group was killed, so
 * that nobody was left to write it down.
 */
export function describeEnd(status: number | undefined, stopping: boolean): TaskEnd {
  const signal = status === undefined ? "SIGKILL" : signalOf(status);
  const exitCode = signal === "" ? (status ?? 0) : 0;
  const how = signal === "" ? `exit code ${exitCode}` : `killed by ${signal}`;
  if (stopping) {
    const reason = `stopped as asked (${how})`;
    return { outcome: "STOPPED", failureClass: undefined, exitCode, signal, reason };
  }
  if (status === 0) {
    return { outcome: "SUCCEEDED", failureClass: undefined, exitCode, signal, reason: how };
  }
  if (status === notFound || status === notExecutable) {
    const reason = `its command could not be run (${how})`;
    return { outcome: "FAILED", failureClass: "PLATFORM", exitCode, signal, reason };
  }
  return { outcome: "FAILED", failureClass: "USER_ERROR", exitCode, signal, reason: how };
}

function signalOf(status: number): string {
  if (status <= 128) return "";
  const found = Object.entries(constants.signals).find(([, number]) => number === status - 128);
  return found?.[0] ?? "";
}
