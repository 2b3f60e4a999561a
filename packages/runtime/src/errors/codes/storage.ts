/** Codes of checkpoints, objects, data sets and tokenizers. Alphabetical. */
import type { ErrorEntry } from "../entry.ts";
import { terminal, transient } from "../entry.ts";

/** Entries by code. */
export const STORAGE_CODES = {
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
  COV_MODEL_NOT_FOUND: terminal(
    "not_found",
    "No running replica serves the model",
    "List the models; a replica may still be loading.",
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
  COV_TOKENIZER_INVALID: terminal(
    "invalid_argument",
    "Tokenizer files are damaged or of a kind that is not read",
    "Use byte-level BPE tokenizer files; the message says what is wrong.",
  ),
} as const satisfies Record<string, ErrorEntry>;
