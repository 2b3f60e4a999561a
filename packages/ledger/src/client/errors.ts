import { CovenantError, type ErrorCode } from "@covenant/runtime";
import { RPC_ERRORS } from "../wire.ts";

/** Chain rules that only say "not yet". */
const RATE_LIMITS: ReadonlySet<string> = new Set([
  "AdminActionProhibitedDuringWeightsWindow",
  "CommittingWeightsTooFast",
  "NeedWaitingMoreBlocksToStarCall",
  "RevealTooEarly",
  "ServingRateLimitExceeded",
  "SettingWeightsTooFast",
  "SpaceLimitExceeded",
  "TooManyRegistrationsThisBlock",
  "TooManyUnrevealedCommits",
]);

/** Errors of the server that are not rules of the chain. */
const SERVER_CODES: { readonly [name: string]: ErrorCode } = {
  BlockNotFinal: "COV_LEDGER_BLOCK_NOT_FINAL",
  DeadlineExceeded: "COV_DEADLINE_EXCEEDED",
  EventsUnknown: "COV_NOT_FOUND",
  PoolFull: "COV_LEDGER_POOL_FULL",
  SubnetNotExists: "COV_NOT_FOUND",
  Unavailable: "COV_LEDGER_UNAVAILABLE",
};

/** A dispatch error by Subtensor's name, wherever the chain noticed it. */
export function moduleError(name: string, detail: string | undefined, call: string): CovenantError {
  const code = RATE_LIMITS.has(name) ? "COV_LEDGER_RATE_LIMITED" : "COV_LEDGER_REJECTED";
  return new CovenantError(code, `${call}: ${detail ?? name}`, { metadata: { name, call } });
}

/** The catalogue's error for a JSON-RPC error. */
export function rpcError(
  error: { code: number; message: string; data?: Record<string, string> | undefined },
  method: string,
): CovenantError {
  const { code, message, data = {} } = error;
  const text = `${method}: ${message}`;
  if (code === RPC_ERRORS.invalidTransaction) {
    const metadata = { reason: data.invalid ?? "unknown", method };
    return new CovenantError("COV_LEDGER_EXTRINSIC_INVALID", text, { metadata });
  }
  if (code === RPC_ERRORS.poolFull) return new CovenantError("COV_LEDGER_POOL_FULL", text);
  if (code === RPC_ERRORS.invalidParams) return new CovenantError("COV_INVALID_ARGUMENT", text);
  const { name } = data;
  if (code === RPC_ERRORS.server && name !== undefined) {
    const known = SERVER_CODES[name];
    if (known !== undefined) return new CovenantError(known, text, { metadata: { name, method } });
    return moduleError(name, message, method);
  }
  const metadata = { method, rpcCode: code };
  return new CovenantError("COV_LEDGER_ANSWER_INVALID", text, { metadata });
}
