import { VerdictReason } from "@covenant/contracts/gauntlet";

/** What a refusal by the cheap checks is called in a verdict; the keys are the codes of the update checks. */
const REASON_OF_PROBLEM: Record<string, VerdictReason> = {
  TOO_LARGE: VerdictReason.MALFORMED,
  TRUNCATED: VerdictReason.MALFORMED,
  MALFORMED: VerdictReason.MALFORMED,
  NOT_CANONICAL: VerdictReason.MALFORMED,
  BAD_SIGNATURE: VerdictReason.BAD_SIGNATURE,
  WRONG_RUN: VerdictReason.MALFORMED,
  WRONG_ROUND: VerdictReason.WRONG_BASE,
  WRONG_BASE: VerdictReason.WRONG_BASE,
  WRONG_TABLE: VerdictReason.MALFORMED,
  WRONG_CODEC: VerdictReason.MALFORMED,
  WRONG_RULE: VerdictReason.MALFORMED,
  WRONG_WORK: VerdictReason.MALFORMED,
  WRONG_SAMPLES: VerdictReason.NOT_TRAINED_ON_ASSIGNED,
  HASH_MISMATCH: VerdictReason.HASH_MISMATCH,
};

/** The verdict reason of a failed check; unknown codes are malformed updates. */
export function reasonOfProblem(code: string): VerdictReason {
  return REASON_OF_PROBLEM[code] ?? VerdictReason.MALFORMED;
}

/** Name of a reason for logs and sentences, for example "NO_IMPROVEMENT". */
export function reasonName(reason: VerdictReason): string {
  const entry = Object.entries(VerdictReason).find(([, value]) => value === reason);
  return entry?.[0] ?? `REASON_${reason}`;
}

/** What a reason does to the moving average of the proof of training: +1, -1, 0 (decay), undefined (untouched). */
export function indicatorOf(reason: VerdictReason): number | undefined {
  switch (reason) {
    case VerdictReason.ACCEPTED:
      return 1;
    case VerdictReason.VALIDATOR_FAULT:
    case VerdictReason.UNSPECIFIED:
      return undefined;
    case VerdictReason.MISSING:
    case VerdictReason.LATE:
      return 0;
    default:
      return -1;
  }
}
