export { fromBfloat16, toBfloat16 } from "./format/bfloat16.ts";
export {
  CHUNK_BYTES,
  type ChunkPlace,
  checkpointBytes,
  checkpointRoot,
  chunkCount,
  chunkPlaces,
  hasBit,
  hashChunks,
  makeBitmap,
} from "./format/chunks.ts";
export { CheckpointError, type CheckpointErrorCode } from "./format/errors.ts";
export {
  checkShape,
  llamaTensors,
  type ModelShape,
  parameterCount,
  parseModelConfig,
  type TensorPlace,
} from "./format/llama.ts";
export {
  buildManifest,
  MANIFEST_LIMITS,
  type ManifestExpectation,
  type ManifestFacts,
  manifestBytes,
  signManifest,
  verifyManifest,
} from "./format/manifest.ts";
export type { ModelCardFacts } from "./format/model-card.ts";
export {
  type CheckpointFileData,
  type ExportOptions,
  exportCheckpoint,
  type ImportedCheckpoint,
  importCheckpoint,
} from "./format/model-directory.ts";
export { firstBadPath, isSafePath } from "./format/paths.ts";
export {
  DTYPE_BYTES,
  type Dtype,
  readSafetensors,
  type SafeTensor,
  writeSafetensors,
} from "./format/safetensors.ts";
export { ChunkStore, MANIFEST_FILE, readStoredManifest } from "./transfer/chunk-store.ts";
export type { CallLimits, StreamClient, UploadClient } from "./transfer/client.ts";
export { type ReadDirectoryOptions, readCheckpointDirectory } from "./transfer/directory.ts";
export { type ReceiveOptions, type ReceiveResult, receiveCheckpoint } from "./transfer/receive.ts";
export {
  type ChunkReader,
  type UploadOptions,
  type UploadResult,
  uploadCheckpoint,
} from "./transfer/upload.ts";
