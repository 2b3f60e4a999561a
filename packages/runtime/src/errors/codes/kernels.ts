/** Codes of the native kernels; `COV_DELTA_*` and `COV_SPARSE_*` are reasons to refuse one. Alphabetical. */
import type { ErrorEntry } from "../entry.ts";
import { terminal, transient } from "../entry.ts";

/** Entries by code. */
export const KERNELS_CODES = {
  COV_DELTA_MALFORMED: terminal(
    "invalid_argument",
    "A policy delta holds a code that no encoder writes",
    "Fetch it again; if it stays so, refuse its sender.",
  ),
  COV_DELTA_WRONG_BASE: terminal(
    "failed_precondition",
    "A policy delta was made from other weights than those at hand",
    "Fetch the whole checkpoint, or the deltas in between.",
  ),
  COV_DELTA_WRONG_COUNT: terminal(
    "invalid_argument",
    "A policy delta was made for another number of weights",
    "Check that both sides mean the same model.",
  ),
  COV_DELTA_WRONG_MAGIC: terminal(
    "invalid_argument",
    "These bytes are no policy delta of a known version",
    "Update this software, or refuse the sender.",
  ),
  COV_DELTA_WRONG_RESULT: terminal(
    "data_loss",
    "A policy delta leads to other weights than it names",
    "Fetch it again; if it stays so, refuse its sender.",
  ),
  COV_DELTA_WRONG_SIZE: terminal(
    "invalid_argument",
    "A policy delta is longer or shorter than its contents say",
    "Fetch it again.",
  ),
  COV_KERNELS_CANCELLED: terminal(
    "canceled",
    "The caller gave a kernel job up",
    "Nothing; submit the job again if it is still needed.",
  ),
  COV_KERNELS_CLOSED: terminal(
    "failed_precondition",
    "The model was closed while a job was asked of it",
    "Report it with the trace id.",
  ),
  COV_KERNELS_FAILED_PRECONDITION: terminal(
    "failed_precondition",
    "A kernel call came out of order",
    "Report it with the trace id.",
  ),
  COV_KERNELS_INTERNAL: terminal(
    "internal",
    "A fault in the kernels",
    "Report it with the trace id.",
  ),
  COV_KERNELS_INVALID_ARGUMENT: terminal(
    "invalid_argument",
    "An argument of a kernel call can never be valid",
    "Correct what the message names.",
  ),
  COV_KERNELS_MALFORMED: terminal(
    "invalid_argument",
    "Bytes given to the kernels do not follow their format",
    "Refuse what they came from; the message says where they break the format.",
  ),
  COV_KERNELS_MEMORY_LIMIT: terminal(
    "resource_exhausted",
    "A model would need more memory than its limit",
    "Raise the memory limit or use smaller batches.",
  ),
  COV_KERNELS_NON_FINITE: terminal(
    "data_loss",
    "Weights, gradients or results hold NaN or infinity",
    "Go back to the newest good checkpoint and lower the learning rate.",
  ),
  COV_KERNELS_NOT_BUILT: terminal(
    "failed_precondition",
    "The native kernels are missing or do not load",
    "Run npm run build:kernels.",
  ),
  COV_KERNELS_OUT_OF_MEMORY: transient(
    "resource_exhausted",
    "The system refused the kernels memory",
    "Free memory on this machine or use a smaller model.",
  ),
  COV_KERNELS_OUT_OF_RANGE: terminal(
    "out_of_range",
    "A token or position lies outside the model's range",
    "Stay within the model's vocabulary and length.",
  ),
  COV_KERNELS_QUEUE_FULL: transient(
    "resource_exhausted",
    "Too many jobs wait for the engine",
    "Try again when load falls.",
  ),
  COV_KERNELS_UNSUPPORTED: terminal(
    "unimplemented",
    "This machine cannot do what the call needs",
    "Use another machine or another setting; the message names it.",
  ),
  COV_SPARSE_BITMAP_INVALID: terminal(
    "invalid_argument",
    "The bitmap of a chunk does not mark the stated number of values",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_INDEX_NOT_ASCENDING: terminal(
    "invalid_argument",
    "Indices of a chunk do not ascend",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_INDEX_OUT_OF_RANGE: terminal(
    "invalid_argument",
    "An index lies outside its chunk",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_LEVELS_OUT_OF_ORDER: terminal(
    "invalid_argument",
    "Quantisation levels are not in order",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_MAGNITUDE_TOO_LARGE: terminal(
    "invalid_argument",
    "Values to be compressed are around or above 2^100",
    "Lower the learning rate; training has diverged.",
  ),
  COV_SPARSE_NON_FINITE: terminal(
    "invalid_argument",
    "Values to be compressed hold NaN or infinity",
    "Lower the learning rate; training has diverged.",
  ),
  COV_SPARSE_NOT_CANONICAL: terminal(
    "invalid_argument",
    "The same update could be written in fewer or other bytes",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_SCALE_OUT_OF_BOUNDS: terminal(
    "invalid_argument",
    "A scale is no positive finite number within bounds",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_TRAILING_BITS: terminal(
    "invalid_argument",
    "Bits after the end of the update are set",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_WRONG_KEEP: terminal(
    "invalid_argument",
    "The update keeps another number of values per chunk than the run",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_WRONG_MAGIC: terminal(
    "invalid_argument",
    "The bytes are no sparse update",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_WRONG_MODE: terminal(
    "invalid_argument",
    "The update is coded in another mode than the run's",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_WRONG_SIZE: terminal(
    "invalid_argument",
    "The update is longer or shorter than its contents",
    "Refuse the update; its author must send the run's own format.",
  ),
  COV_SPARSE_WRONG_TENSOR_COUNT: terminal(
    "invalid_argument",
    "The update has another number of tensors than the model",
    "Refuse the update; its author must send the run's own format.",
  ),
} as const satisfies Record<string, ErrorEntry>;
