/** Codes that any process may answer with: transport, identity, files, configuration. Alphabetical. */
import type { ErrorEntry } from "../entry.ts";
import { terminal, transient } from "../entry.ts";

/** Entries by code. */
export const GENERAL_CODES = {
  COV_ABORTED: transient(
    "aborted",
    "The operation was given up because of a conflict",
    "Try again.",
  ),
  COV_ALREADY_EXISTS: terminal(
    "already_exists",
    "Something of that name exists already",
    "Choose another name, or use what exists.",
  ),
  COV_CANCELLED: terminal(
    "canceled",
    "The caller cancelled the call, or the process is stopping",
    "Nothing; call again if you still need it.",
  ),
  COV_CERTIFICATE_REJECTED: terminal(
    "unauthenticated",
    "The client certificate is not signed by this mesh's authority, or has expired",
    "Use a certificate issued by the mesh's own authority, and check both clocks.",
  ),
  COV_CHALLENGE_INVALID: terminal(
    "unauthenticated",
    "The challenge is not one of this server, has expired, was used before, or its signature does not match",
    "Ask for a new challenge and sign exactly its bytes.",
  ),
  COV_CONFIG_INVALID: terminal(
    "invalid_argument",
    "The configuration has errors; all of them are listed",
    "Correct the listed keys; --help shows every key with its default.",
  ),
  COV_DATABASE_CORRUPT: terminal(
    "data_loss",
    "The database file is damaged",
    "Stop the service, keep a copy of the file, restore a backup or delete it to start empty.",
  ),
  COV_DATABASE_MIGRATION_CHANGED: terminal(
    "failed_precondition",
    "A migration that was applied earlier has changed, or the file comes from a newer release",
    "Run the release that wrote the file, or restore a backup.",
  ),
  COV_DATA_DIRECTORY_IN_USE: terminal(
    "failed_precondition",
    "Another process works in the data directory",
    "Stop that process or configure another dataDirectory.",
  ),
  COV_DATA_LOSS: terminal(
    "data_loss",
    "Stored data is missing or damaged",
    "Restore the data from a backup or from another participant.",
  ),
  COV_DEADLINE_EXCEEDED: transient(
    "deadline_exceeded",
    "The call did not finish before its deadline",
    "Try again, or allow a longer deadline.",
  ),
  COV_DISK_FULL: transient(
    "resource_exhausted",
    "The disk or the quota is full; nothing was changed",
    "Free space on the named file system, then try again.",
  ),
  COV_DRAINING: transient(
    "unavailable",
    "The server is shutting down and takes no new calls",
    "Connect again; a replacement may already be serving.",
  ),
  COV_FAILED_PRECONDITION: terminal(
    "failed_precondition",
    "The system is not in the state that the call needs",
    "Bring it into that state first; the message names it.",
  ),
  COV_FILE_NOT_FOUND: terminal("not_found", "A file does not exist", "Check the path."),
  COV_FILE_TOO_LARGE: terminal(
    "resource_exhausted",
    "A file is larger than its limit",
    "Check that it is the right file, or raise the named limit.",
  ),
  COV_FILE_UNREADABLE: terminal(
    "permission_denied",
    "A file exists but cannot be read or written",
    "Check its owner and permissions.",
  ),
  COV_IDEMPOTENCY_CONFLICT: terminal(
    "already_exists",
    "The idempotency key was used before for a different request",
    "Use a new key for a new request.",
  ),
  COV_INTERNAL: terminal(
    "internal",
    "A fault in the program; its log has the cause under the same trace id",
    "Report it with the trace id.",
  ),
  COV_INVALID_ARGUMENT: terminal(
    "invalid_argument",
    "The request cannot be understood",
    "Correct the request; the message names the field.",
  ),
  COV_MESSAGE_TOO_LARGE: terminal(
    "resource_exhausted",
    "A message is larger than 16 MiB",
    "Send bulk data as a stream of smaller pieces.",
  ),
  COV_NOT_FOUND: terminal(
    "not_found",
    "What the request names does not exist",
    "Check the name; a list call shows what exists.",
  ),
  COV_OUT_OF_RANGE: terminal(
    "out_of_range",
    "A position or number lies outside what exists",
    "Stay within the range that the message names.",
  ),
  COV_PERMISSION_DENIED: terminal(
    "permission_denied",
    "The caller is known but may not call this method",
    "Use an identity with one of the roles that the message names.",
  ),
  COV_PORT_IN_USE: terminal(
    "failed_precondition",
    "Another process listens on the configured port",
    "Choose another listen.port (0 picks a free one) or stop the other process.",
  ),
  COV_RESOURCE_EXHAUSTED: transient(
    "resource_exhausted",
    "A limit is reached",
    "Wait until load falls, or raise the named limit.",
  ),
  COV_SERVER_NOT_TRUSTED: terminal(
    "unavailable",
    "The server's certificate is not signed by the configured authority or names another host",
    "Check caFile and the address; do not continue if neither is wrong.",
  ),
  COV_STREAM_IDLE: transient(
    "unavailable",
    "No message moved on a stream for its idle limit",
    "Open the stream again from the last position seen.",
  ),
  COV_TOKEN_INVALID: transient(
    "unauthenticated",
    "The bearer token is not one of this server, or has expired",
    "Exchange a new challenge for a new token.",
  ),
  COV_UNAUTHENTICATED: terminal(
    "unauthenticated",
    "The call needs an identity: a client certificate or a hotkey's token",
    "Configure tls (certificate) or a hotkey on the client.",
  ),
  COV_UNAVAILABLE: transient(
    "unavailable",
    "The server cannot be reached, or cannot serve now",
    "Check that it runs and that the address is right, then try again.",
  ),
  COV_UNIMPLEMENTED: terminal(
    "unimplemented",
    "The server does not have this method",
    "Check that client and server are of matching releases.",
  ),
  COV_UNKNOWN: terminal(
    "unknown",
    "The server failed without saying how",
    "Look into the server's log.",
  ),
} as const satisfies Record<string, ErrorEntry>;
