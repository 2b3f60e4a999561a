/** Codes of runs, rounds, updates, rollouts and post-training. Alphabetical. */
import type { ErrorEntry } from "../entry.ts";
import { terminal, transient } from "../entry.ts";

/** Entries by code. */
export const TRAINING_CODES = {
  COV_CONTEXT_TOO_LONG: terminal(
    "invalid_argument",
    "Prompt and completion together exceed the context of the model",
    "Shorten the prompt, or ask for fewer tokens.",
  ),
  COV_DEVICE_UNAVAILABLE: terminal(
    "failed_precondition",
    "The CUDA device of the configuration is not there; the message says what is missing",
    "Install the driver and the CUDA library or name another device; with device auto or cpu the processor computes.",
  ),
  COV_ENVIRONMENT_UNKNOWN: terminal(
    "not_found",
    "No environment of that name and version is built in",
    "Use an environment from docs/reference/grail.md, for example arithmetic@1.",
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
  COV_IDENTITY_CORRUPT: terminal(
    "failed_precondition",
    "A key file does not hold a key",
    "Restore the file from a backup.",
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
  COV_NO_VALIDATOR: transient(
    "unavailable",
    "No validator with stake is on the ledger",
    "Start a validator, or configure validatorUrl.",
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
