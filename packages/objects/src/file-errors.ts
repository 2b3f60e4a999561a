// From errno to the error catalogue.
import { CovenantError } from "@covenant/runtime";

/** True when `error` is a system error with one of these errno names. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && codes.includes(code);
}

/**
 * The catalogue's error for a failed file operation: `COV_DISK_FULL` when space or quota ran out,
 * `COV_OBJECT_BAD_NAME` for a symbolic link or a directory in the way, otherwise the error itself.
 */
export function mapFileError(error: unknown, what: string): unknown {
  if (error instanceof CovenantError) return error;
  if (hasCode(error, "ENOSPC", "EDQUOT")) {
    return new CovenantError("COV_DISK_FULL", `No space left to store ${what}`, { cause: error });
  }
  if (hasCode(error, "ELOOP", "EISDIR", "ENOTDIR", "ENXIO")) {
    return new CovenantError("COV_OBJECT_BAD_NAME", `Something else than an object is at ${what}`, {
      cause: error,
    });
  }
  return error;
}
