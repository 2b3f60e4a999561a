// Errors about data from outside: tokenizer files, shards, texts.

/** Codes of {@link DataError}; all are in the error catalogue. */
export type DataErrorCode =
  | "COV_DATA_SHARD_MISMATCH"
  | "COV_DATA_TOO_SHORT"
  | "COV_TOKENIZER_INVALID";

/** Data that arrived is not what it has to be. */
export class DataError extends Error {
  readonly code: DataErrorCode;

  constructor(code: DataErrorCode, message: string) {
    super(message);
    this.name = "DataError";
    this.code = code;
  }
}
