/** The one error class that leaves a module of the mesh. */
import type { ErrorCode, StatusName } from "./catalogue.ts";
import { CATALOGUE } from "./catalogue.ts";

/** Optional parts of an error. */
export interface CovenantErrorOptions {
  /** Replaces the catalogue's remedy where the thrower knows better. */
  remedy?: string;
  /** Facts of this occurrence: field names, limits, ids. Never secrets; it travels to callers. */
  metadata?: Record<string, string | number | bigint | boolean>;
  /** What was caught; for the log, never sent. */
  cause?: unknown;
}

// Survives two copies of this package in one process, where instanceof does not.
const BRAND = Symbol.for("covenant.error");

/** An error of the world, with a code that programs and a remedy that people act on. */
export class CovenantError extends Error {
  readonly code: ErrorCode;
  readonly remedy: string;
  /** True when the same call may succeed later without changes. */
  readonly retryable: boolean;
  /** gRPC status on the wire. */
  readonly status: StatusName;
  readonly metadata: Record<string, string>;
  readonly [BRAND] = true;

  constructor(code: ErrorCode, message: string, options: CovenantErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "CovenantError";
    this.code = code;
    const entry = CATALOGUE[code];
    this.remedy = options.remedy ?? entry.remedy;
    this.retryable = entry.retryable;
    this.status = entry.status;
    this.metadata = Object.fromEntries(
      Object.entries(options.metadata ?? {}).map(([key, value]) => [key, String(value)]),
    );
  }

  /** True for errors of this class, whichever copy of the package made them. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && BRAND in value;
  }
}

/** True when `error` is a CovenantError with this code. */
export function hasCode(error: unknown, code: ErrorCode): error is CovenantError {
  return error instanceof CovenantError && error.code === code;
}
