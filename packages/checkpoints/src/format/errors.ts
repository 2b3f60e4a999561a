// What can be wrong with a checkpoint, by code of the error catalogue.

/** Codes of {@link CheckpointError}. */
export type CheckpointErrorCode =
  | "COV_CHECKPOINT_CHUNK_MISMATCH"
  | "COV_CHECKPOINT_DELTA_UNSUPPORTED"
  | "COV_CHECKPOINT_FILES_INVALID"
  | "COV_CHECKPOINT_MANIFEST_INVALID"
  | "COV_CHECKPOINT_MODEL_UNSUPPORTED"
  | "COV_CHECKPOINT_SIGNATURE"
  | "COV_CHECKPOINT_TENSORS_INVALID"
  | "COV_CHECKPOINT_TOO_LARGE"
  | "COV_CHECKPOINT_TRANSFER_STALLED"
  | "COV_CHECKPOINT_WRONG_ROOT";

/** A checkpoint, or a part of one, is not what it has to be. The message names the part. */
export class CheckpointError extends Error {
  readonly code: CheckpointErrorCode;

  constructor(code: CheckpointErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "CheckpointError";
    this.code = code;
  }
}
