/** The two edges of the error model: anything caught → CovenantError → the wire, and back. */
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "@covenant/contracts/common";
import type { ErrorCode, StatusName } from "./catalogue.ts";
import { CATALOGUE, STATUS_CODES } from "./catalogue.ts";
import { CovenantError } from "./covenant-error.ts";

const STATUS_NAMES = new Map<Code, StatusName>(
  Object.entries(STATUS_CODES).map(([name, code]) => [code, name as StatusName]),
);

/** What a status means when the other side says nothing more. */
const CODE_OF_STATUS: Record<StatusName, ErrorCode> = {
  aborted: "COV_ABORTED",
  already_exists: "COV_ALREADY_EXISTS",
  canceled: "COV_CANCELLED",
  data_loss: "COV_DATA_LOSS",
  deadline_exceeded: "COV_DEADLINE_EXCEEDED",
  failed_precondition: "COV_FAILED_PRECONDITION",
  internal: "COV_INTERNAL",
  invalid_argument: "COV_INVALID_ARGUMENT",
  not_found: "COV_NOT_FOUND",
  out_of_range: "COV_OUT_OF_RANGE",
  permission_denied: "COV_PERMISSION_DENIED",
  resource_exhausted: "COV_RESOURCE_EXHAUSTED",
  unauthenticated: "COV_UNAUTHENTICATED",
  unavailable: "COV_UNAVAILABLE",
  unimplemented: "COV_UNIMPLEMENTED",
  unknown: "COV_UNKNOWN",
};

const ENTRIES: Record<string, (typeof CATALOGUE)[ErrorCode] | undefined> = CATALOGUE;

/** Normalises anything caught. A fault without a code becomes COV_INTERNAL with the fault as cause. */
export function fromUnknown(reason: unknown): CovenantError {
  if (reason instanceof CovenantError) return reason;
  if (reason instanceof ConnectError) return fromConnectError(reason);
  const coded = fromCodedError(reason);
  if (coded) return coded;
  const network = fromNetworkFault(reason);
  if (network) return network;
  if (reason instanceof Error && (reason.name === "AbortError" || reason.name === "TimeoutError")) {
    const code = reason.name === "AbortError" ? "COV_CANCELLED" : "COV_DEADLINE_EXCEEDED";
    return new CovenantError(code, reason.message, { cause: reason });
  }
  const message = reason instanceof Error ? reason.message : String(reason);
  return new CovenantError("COV_INTERNAL", message, { cause: reason });
}

/**
 * The error as it goes over the wire, with an ErrorDetail. The text of a fault without a code stays
 * in the process: it may hold paths, queries or secrets.
 */
export function toConnectError(reason: unknown): ConnectError {
  const error = fromUnknown(reason);
  const hidden = error.code === "COV_INTERNAL" && error.cause !== undefined;
  const detail = {
    desc: ErrorDetailSchema,
    value: {
      code: error.code,
      remedy: error.remedy,
      retryable: error.retryable,
      metadata: error.metadata,
    },
  };
  const message = hidden ? CATALOGUE.COV_INTERNAL.meaning : error.message;
  return new ConnectError(message, STATUS_CODES[error.status], undefined, [detail], error);
}

/** Faults of the disk and of SQLite that users can do something about, wherever they surface. */
const FOREIGN_CODES: Record<string, ErrorCode | undefined> = {
  EDQUOT: "COV_DISK_FULL",
  ENOSPC: "COV_DISK_FULL",
  SQLITE_CORRUPT: "COV_DATABASE_CORRUPT",
  SQLITE_FULL: "COV_DISK_FULL",
  SQLITE_NOTADB: "COV_DATABASE_CORRUPT",
};

/** Pure packages know no runtime: their errors carry a code of the catalogue in `code`. */
function fromCodedError(reason: unknown): CovenantError | undefined {
  if (!(reason instanceof Error)) return undefined;
  const { code, remedy, metadata } = reason as Partial<CovenantError>;
  if (typeof code !== "string") return undefined;
  const known = ENTRIES[code] ? (code as ErrorCode) : FOREIGN_CODES[code];
  if (!known) return undefined;
  return new CovenantError(known, reason.message, {
    cause: reason,
    ...(typeof remedy === "string" && { remedy }),
    ...(typeof metadata === "object" && metadata !== null && { metadata }),
  });
}

function fromConnectError(error: ConnectError): CovenantError {
  if (error.cause instanceof CovenantError) return error.cause;
  const status = STATUS_NAMES.get(error.code) ?? "unknown";
  const [detail] = error.findDetails(ErrorDetailSchema);
  if (detail) {
    const { code, remedy, retryable, metadata } = detail;
    const known = ENTRIES[code] ? (code as ErrorCode) : CODE_OF_STATUS[status];
    const made = new CovenantError(known, error.rawMessage, { metadata, cause: error });
    // A newer peer may know codes that this release does not: keep what it said.
    return Object.assign(made, { code, remedy: remedy || made.remedy, retryable, status });
  }
  const network = fromNetworkFault(error);
  if (network) return network;
  return new CovenantError(protocolCode(error) ?? CODE_OF_STATUS[status], error.rawMessage, {
    cause: error,
  });
}

/** Faults that the RPC library words itself: too large or unreadable messages. */
function protocolCode(error: ConnectError): ErrorCode | undefined {
  if (error.code === Code.ResourceExhausted && /MaxBytes/.test(error.rawMessage)) {
    return "COV_MESSAGE_TOO_LARGE";
  }
  if (error.code === Code.Internal && /^parse binary/.test(error.rawMessage)) {
    return "COV_INVALID_ARGUMENT";
  }
  return undefined;
}

const UNREACHABLE = new Set([
  "EAI_AGAIN",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EPIPE",
  "ERR_HTTP2_GOAWAY_SESSION",
  "ERR_HTTP2_INVALID_SESSION",
  "ERR_HTTP2_SESSION_ERROR",
  "ETIMEDOUT",
]);
const UNTRUSTED =
  /^(CERT_|DEPTH_ZERO_SELF_SIGNED_CERT|ERR_TLS_CERT_ALTNAME_INVALID|SELF_SIGNED|UNABLE_TO_)/;

/** Node's own words for a broken connection or handshake, found anywhere in the chain of causes. */
function fromNetworkFault(reason: unknown): CovenantError | undefined {
  const chain: unknown[] = [];
  for (let at = reason; at instanceof Error && chain.length < 8; at = at.cause) chain.push(at);
  for (const link of chain) {
    const { code, message } = link as { code?: unknown; message: string };
    const name = typeof code === "string" ? code : "";
    if (/certificate required|bad certificate|unknown ca|certificate unknown/i.test(message)) {
      const text = "The server asks for a client certificate that it accepts";
      return new CovenantError("COV_UNAUTHENTICATED", text, { cause: reason });
    }
    if (UNTRUSTED.test(name)) {
      return new CovenantError("COV_SERVER_NOT_TRUSTED", message, { cause: reason });
    }
    if (UNREACHABLE.has(name)) {
      return new CovenantError("COV_UNAVAILABLE", message, { cause: reason });
    }
    // The other side's connection holds as much as it may; it takes new calls when that has moved.
    if (name === "ERR_HTTP2_STREAM_ERROR" && message.includes("ENHANCE_YOUR_CALM")) {
      return new CovenantError("COV_RESOURCE_EXHAUSTED", message, { cause: reason });
    }
  }
  return undefined;
}
