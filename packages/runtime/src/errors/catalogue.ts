/**
 * Every error code of the mesh. A code is stable for ever: programs match on it. To add one, add an
 * entry in alphabetical order and run
 * `node packages/runtime/scripts/error-docs.ts` (a test compares the page).
 * The remedy is what a user reads when the thrower gives none: one sentence, imperative.
 */
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
function terminal(status: StatusName, meaning: string, remedy: string): ErrorEntry {
  return { status, retryable: false, meaning, remedy };
}

/** An error that may go away by itself. */
function transient(status: StatusName, meaning: string, remedy: string): ErrorEntry {
  return { status, retryable: true, meaning, remedy };
}

/** The catalogue, by code. */
export const CATALOGUE = {
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
  COV_BUSY: transient(
    "resource_exhausted",
    "As many requests as allowed are waiting",
    "Try again after a moment; the error says when where it is known.",
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
  COV_CHECKPOINT_CHUNK_MISMATCH: terminal(
    "data_loss",
    "A chunk's bytes are not what the manifest says",
    "Send the chunk again; if it stays so, the file changed or the disk is damaged.",
  ),
  COV_CHECKPOINT_DELTA_UNSUPPORTED: terminal(
    "unimplemented",
    "The checkpoint is a delta, and this release works with full checkpoints",
    "Use a full checkpoint.",
  ),
  COV_CHECKPOINT_FILES_INVALID: terminal(
    "invalid_argument",
    "A file of the model directory is missing or unreadable",
    "Export the directory again; the message names the file.",
  ),
  COV_CHECKPOINT_INCOMPLETE: terminal(
    "failed_precondition",
    "The upload lacks chunks and cannot be committed",
    "Begin the upload again: it says which chunks are missing.",
  ),
  COV_CHECKPOINT_MANIFEST_INVALID: terminal(
    "invalid_argument",
    "A manifest breaks a rule or a limit; the message names the field",
    "Build the manifest with the tools of this release.",
  ),
  COV_CHECKPOINT_MODEL_UNSUPPORTED: terminal(
    "invalid_argument",
    "config.json describes a model that the kernels do not compute",
    "Use a LLaMA-family model without the named feature.",
  ),
  COV_CHECKPOINT_NOT_FOUND: terminal(
    "not_found",
    "The registry has no checkpoint of that root",
    "List the checkpoints; it may have been pruned.",
  ),
  COV_CHECKPOINT_ROOT_TAKEN: terminal(
    "already_exists",
    "The same content is registered already under another description",
    "Use the registered checkpoint, or change the content.",
  ),
  COV_CHECKPOINT_SIGNATURE: terminal(
    "permission_denied",
    "A manifest's signature is not valid, or not by the expected hotkey",
    "Check which hotkey should have made the checkpoint.",
  ),
  COV_CHECKPOINT_TENSORS_INVALID: terminal(
    "invalid_argument",
    "A safetensors file is damaged, or its tensors are not those of the model",
    "Export the model again; the message names the tensor.",
  ),
  COV_CHECKPOINT_TOO_LARGE: terminal(
    "resource_exhausted",
    "The checkpoint is larger than the receiver takes",
    "Raise the receiver's limit, or send a smaller checkpoint.",
  ),
  COV_CHECKPOINT_TRANSFER_STALLED: transient(
    "unavailable",
    "A transfer made no progress within its limits",
    "Start it again: it goes on where it stopped.",
  ),
  COV_CHECKPOINT_UPLOADS_LIMIT: transient(
    "resource_exhausted",
    "As many uploads as allowed are open",
    "Commit or wait for open uploads, or raise maxOpenUploads.",
  ),
  COV_CHECKPOINT_UPLOAD_UNKNOWN: terminal(
    "not_found",
    "The upload does not exist, has expired, or belongs to somebody else",
    "Begin the upload again; chunks that arrived may still be held.",
  ),
  COV_CHECKPOINT_WRONG_ROOT: terminal(
    "data_loss",
    "The content does not have the root that names it",
    "Get the checkpoint from another source.",
  ),
  COV_CONFIG_INVALID: terminal(
    "invalid_argument",
    "The configuration has errors; all of them are listed",
    "Correct the listed keys; --help shows every key with its default.",
  ),
  COV_CONTEXT_TOO_LONG: terminal(
    "invalid_argument",
    "Prompt and completion together exceed the context of the model",
    "Shorten the prompt, or ask for fewer tokens.",
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
  COV_DATA_SHARD_MISMATCH: terminal(
    "data_loss",
    "A data set shard is not what the run's configuration says",
    "Fetch the shard again; if it stays so, tell the run's owner.",
  ),
  COV_DATA_TOO_SHORT: terminal(
    "invalid_argument",
    "A text gives not a single sample of the asked length",
    "Give more text, or a shorter sequence length.",
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
  COV_ENVIRONMENT_UNKNOWN: terminal(
    "not_found",
    "No environment of that name and version is built in",
    "Use an environment from docs/reference/grail.md, for example arithmetic@1.",
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
  COV_GROUP_EARLY: transient(
    "failed_precondition",
    "Openings came before the challenge block exists",
    "Wait for the challenge block, then deliver the openings.",
  ),
  COV_GROUP_LATE: terminal(
    "failed_precondition",
    "A group of rollouts ran out of time and was given to somebody else",
    "Ask for new work.",
  ),
  COV_GROUP_PHASE: terminal(
    "failed_precondition",
    "A group of rollouts is already past that step",
    "Ask for its verdict, or for new work.",
  ),
  COV_GROUP_TOO_LARGE: terminal(
    "invalid_argument",
    "A group of rollouts is larger than its contract allows",
    "Deliver exactly what was assigned.",
  ),
  COV_GROUP_UNKNOWN: terminal(
    "not_found",
    "No such group of rollouts is assigned to the caller",
    "Ask for new work.",
  ),
  COV_IDEMPOTENCY_CONFLICT: terminal(
    "already_exists",
    "The idempotency key was used before for a different request",
    "Use a new key for a new request.",
  ),
  COV_IDENTITY_CORRUPT: terminal(
    "failed_precondition",
    "A key file does not hold a key",
    "Restore the file from a backup.",
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
  COV_JOB_FAILED: terminal(
    "failed_precondition",
    "A job that the run needs has failed",
    "Read the logs of its tasks; a second start tries again.",
  ),
  COV_JOB_INFEASIBLE: terminal(
    "failed_precondition",
    "No enrolled node, or all of them together, could ever run the job",
    "Ask for less, or enrol a node that offers what the message names.",
  ),
  COV_JOB_NAME_TAKEN: terminal(
    "already_exists",
    "A job of that name has not ended yet",
    "Choose another name, or cancel the other job.",
  ),
  COV_LEDGER_ANSWER_INVALID: terminal(
    "internal",
    "The chain's answer is not one that this release understands",
    "Check that the URL is a ledger's and that both sides are of the same release.",
  ),
  COV_LEDGER_BLOCK_NOT_FINAL: transient(
    "out_of_range",
    "The block is not final yet",
    "Wait for the block first.",
  ),
  COV_LEDGER_CHAIN_CHANGED: terminal(
    "failed_precondition",
    "The chain is another one than before: other genesis, or a head that went back",
    "Point the process at the chain it was started for, or give it a fresh data directory.",
  ),
  COV_LEDGER_EXTRINSIC_INVALID: terminal(
    "invalid_argument",
    "The chain takes the extrinsic into no block: wrong nonce, signature, life span or shape",
    "Let one process at a time use a key, and check the arguments.",
  ),
  COV_LEDGER_LOG_CORRUPT: terminal(
    "data_loss",
    "The chain's log or hashes are damaged, or were written by a release with other rules",
    "Restore the ledger's data directory from a backup, or delete it to begin a new chain.",
  ),
  COV_LEDGER_LOG_UNWRITABLE: terminal(
    "data_loss",
    "The chain's log could not be written, so no further block can be made",
    "Check the disk, then start the ledger again; it goes on after its last durable block.",
  ),
  COV_LEDGER_POOL_FULL: transient(
    "resource_exhausted",
    "Too many extrinsics wait for a block",
    "Wait for the next blocks.",
  ),
  COV_LEDGER_RATE_LIMITED: transient(
    "resource_exhausted",
    "The chain's rules allow this again only after some blocks or in a later epoch",
    "Wait for the number of blocks that the subnet's rules name.",
  ),
  COV_LEDGER_REJECTED: terminal(
    "failed_precondition",
    "The chain refused the call by one of its rules; metadata.name has the rule",
    "Look the name up in the ledger reference and correct what it says.",
  ),
  COV_LEDGER_UNAVAILABLE: transient(
    "unavailable",
    "The ledger cannot be reached",
    "Check that the ledger process runs and that ledger.url is its address.",
  ),
  COV_MANIFEST_REFUSED: terminal(
    "failed_precondition",
    "A round manifest lacks a quorum, or does not follow from the local state",
    "Wait for a manifest that a quorum of validators signed; the message names the fault.",
  ),
  COV_MERGED_MISMATCH: transient(
    "data_loss",
    "A merged update is not what its manifest says",
    "Fetch it again, or from another validator.",
  ),
  COV_MESH_NOT_FOUND: terminal(
    "not_found",
    "There is no mesh in the directory",
    "Start one with npm start, or name its directory with --data.",
  ),
  COV_MESSAGE_TOO_LARGE: terminal(
    "resource_exhausted",
    "A message is larger than 16 MiB",
    "Send bulk data as a stream of smaller pieces.",
  ),
  COV_MODEL_NOT_FOUND: terminal(
    "not_found",
    "No running replica serves the model",
    "List the models; a replica may still be loading.",
  ),
  COV_NODE_NAME_TAKEN: terminal(
    "permission_denied",
    "The name of the node is bound to another hotkey",
    "Use the hotkey that enrolled the node, or another nodeId.",
  ),
  COV_NOT_FOUND: terminal(
    "not_found",
    "What the request names does not exist",
    "Check the name; a list call shows what exists.",
  ),
  COV_NO_VALIDATOR: transient(
    "unavailable",
    "No validator with stake is on the ledger",
    "Start a validator, or configure validatorUrl.",
  ),
  COV_OBJECT_BAD_NAME: terminal(
    "invalid_argument",
    "A bucket or key is not a portable name, or leads through a link",
    "Use plain names; the message shows the one refused.",
  ),
  COV_OBJECT_EXISTS: terminal(
    "already_exists",
    "The object exists and may not be replaced",
    "Read the object that exists, or choose another key.",
  ),
  COV_OBJECT_NOT_FOUND: terminal(
    "not_found",
    "The object does not exist",
    "Check bucket and key; its owner may not have written it yet.",
  ),
  COV_OBJECT_RANGE: terminal(
    "out_of_range",
    "The range lies outside of the object",
    "Ask for a range within the object's size.",
  ),
  COV_OBJECT_READ_ONLY: terminal(
    "permission_denied",
    "The bucket may not be written by this process",
    "Write to a bucket of your own.",
  ),
  COV_OBJECT_TOO_LARGE: terminal(
    "resource_exhausted",
    "The object is larger than the caller takes",
    "Read it in ranges, or raise the caller's limit.",
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
  COV_POST_TRAINING_ACTIVE: terminal(
    "failed_precondition",
    "Post-training of another job is under way",
    "Wait until it has finished.",
  ),
  COV_POST_TRAINING_FAILED: terminal(
    "failed_precondition",
    "Post-training has failed",
    "Read the log of grail-rl; a second start resumes.",
  ),
  COV_POST_TRAINING_UNKNOWN: terminal(
    "not_found",
    "No such post-training job",
    "Check the job id.",
  ),
  COV_PROCESS_FAILED: terminal(
    "failed_precondition",
    "A process of the mesh cannot be kept running",
    "Read its log; a second start resumes.",
  ),
  COV_RECEIPT_MALFORMED: terminal(
    "invalid_argument",
    "A file is not a receipt",
    "Give the file that the receipt address returned.",
  ),
  COV_RECEIPT_NOT_FOUND: terminal(
    "not_found",
    "No replica holds a receipt of that completion",
    "Ask for a receipt with the completion, and fetch it before it is dropped.",
  ),
  COV_RESOURCE_EXHAUSTED: transient(
    "resource_exhausted",
    "A limit is reached",
    "Wait until load falls, or raise the named limit.",
  ),
  COV_ROUND_PRUNED: terminal(
    "not_found",
    "The merged update of that round is no longer kept",
    "Join from a newer checkpoint.",
  ),
  COV_ROUND_UNKNOWN: terminal(
    "not_found",
    "The validator has no such round yet",
    "Ask for a round that has opened.",
  ),
  COV_RUN_CORRUPT: terminal(
    "data_loss",
    "A run's configuration is not the one that the ledger holds",
    "Restore the object store, or start over.",
  ),
  COV_RUN_INVALID: terminal(
    "failed_precondition",
    "The stored run is not the one on the ledger, or is out of bounds",
    "Ask the run's owner for the right run.",
  ),
  COV_RUN_NOT_COMMITTED: transient(
    "failed_precondition",
    "The run's owner has not committed the run on the ledger yet",
    "Commit the run, or check runOwner.",
  ),
  COV_SERVER_NOT_TRUSTED: terminal(
    "unavailable",
    "The server's certificate is not signed by the configured authority or names another host",
    "Check caFile and the address; do not continue if neither is wrong.",
  ),
  COV_SERVING_FAILED: transient(
    "unavailable",
    "The served model could not be asked",
    "Read the log of the replica.",
  ),
  COV_STATE_CORRUPT: terminal(
    "data_loss",
    "A file of the data directory is damaged",
    "Remove what the error names; it is made again.",
  ),
  COV_STATE_DIVERGED: terminal(
    "data_loss",
    "Applying a signed round led to another state than the one it names",
    "Nothing; the peer rebuilds its state from signed rounds.",
  ),
  COV_STREAM_IDLE: transient(
    "unavailable",
    "No message moved on a stream for its idle limit",
    "Open the stream again from the last position seen.",
  ),
  COV_TOKENIZER_INVALID: terminal(
    "invalid_argument",
    "Tokenizer files are damaged or of a kind that is not read",
    "Use byte-level BPE tokenizer files; the message says what is wrong.",
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
  COV_UPDATE_LATE: terminal(
    "failed_precondition",
    "The round of an announced update has closed",
    "Take part in the next round.",
  ),
  COV_UPDATE_NOT_COMMITTED: transient(
    "failed_precondition",
    "The ledger has no commitment to the announced payload",
    "Commit the payload's hash first; announce when it is in a block.",
  ),
  COV_UPDATE_REFUSED: terminal(
    "invalid_argument",
    "An announced update breaks a rule; the message names it",
    "Announce an update that this round's rules allow.",
  ),
  COV_VERDICT_UNKNOWN: terminal(
    "not_found",
    "There is no verdict on that participant in that round",
    "Ask for a judged round; the scorecard lists the participants.",
  ),
  COV_WORKER_NOT_REGISTERED: terminal(
    "permission_denied",
    "The hotkey is not registered in the subnet",
    "Register the hotkey on the ledger, then try again.",
  ),
} as const satisfies Record<string, ErrorEntry>;

/** A code of the catalogue. */
export type ErrorCode = keyof typeof CATALOGUE;
