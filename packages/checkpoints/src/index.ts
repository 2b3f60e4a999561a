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
