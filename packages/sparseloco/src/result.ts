/** Why an update, a header or a manifest is refused. Stable strings: they appear in verdicts and logs. */
export type ProblemCode =
  | "TOO_LARGE"
  | "TRUNCATED"
  | "MALFORMED"
  | "NOT_CANONICAL"
  | "BAD_SIGNATURE"
  | "WRONG_RUN"
  | "WRONG_ROUND"
  | "WRONG_BASE"
  | "WRONG_TABLE"
  | "WRONG_CODEC"
  | "WRONG_RULE"
  | "WRONG_WORK"
  | "WRONG_SAMPLES"
  | "HASH_MISMATCH"
  | "NO_QUORUM";

/** A refusal: the code decides, the detail explains with numbers. */
export type Problem = { code: ProblemCode; detail: string };

/** Either a value or the reason there is none. Refusals are expected events here, not exceptions. */
export type Checked<T> = { ok: true; value: T } | { ok: false; problem: Problem };

/** Wraps an accepted value. */
export function accepted<T>(value: T): Checked<T> {
  return { ok: true, value };
}

/** Wraps a refusal. */
export function refused(code: ProblemCode, detail: string): { ok: false; problem: Problem } {
  return { ok: false, problem: { code, detail } };
}
