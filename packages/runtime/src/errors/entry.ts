/** What an entry of the error catalogue is made of. */
import type { Code } from "@connectrpc/connect";

/** Name of a gRPC status, as `Code[code]` in snake case. */
export type StatusName =
  | "aborted"
  | "already_exists"
  | "canceled"
  | "data_loss"
  | "deadline_exceeded"
  | "failed_precondition"
  | "internal"
  | "invalid_argument"
  | "not_found"
  | "out_of_range"
  | "permission_denied"
  | "resource_exhausted"
  | "unauthenticated"
  | "unavailable"
  | "unimplemented"
  | "unknown";

/** One line of the catalogue. */
export interface ErrorEntry {
  /** Status on the wire. */
  readonly status: StatusName;
  /** True when the same call may succeed later without changes. */
  readonly retryable: boolean;
  /** When it happens, in words. */
  readonly meaning: string;
  /** What to do about it. */
  readonly remedy: string;
}

/** Number of each status on the wire. */
export const STATUS_CODES: Record<StatusName, Code> = {
  canceled: 1,
  unknown: 2,
  invalid_argument: 3,
  deadline_exceeded: 4,
  not_found: 5,
  already_exists: 6,
  permission_denied: 7,
  resource_exhausted: 8,
  failed_precondition: 9,
  aborted: 10,
  out_of_range: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  data_loss: 15,
  unauthenticated: 16,
};

/** An error that stays until something is changed. */
export function terminal(status: StatusName, meaning: string, remedy: string): ErrorEntry {
  return { status, retryable: false, meaning, remedy };
}

/** An error that may go away by itself. */
export function transient(status: StatusName, meaning: string, remedy: string): ErrorEntry {
  return { status, retryable: true, meaning, remedy };
}
