// What transfers need of a client of the registry: the generated client of any Connect transport fits.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  BeginUploadRequestSchema,
  BeginUploadResponse,
  CommitCheckpointRequestSchema,
  CommitCheckpointResponse,
  PutChunksRequestSchema,
  PutChunksResponse,
  StreamCheckpointRequestSchema,
  StreamCheckpointResponse,
} from "@covenant/contracts/registry";

/** Limits of one call. */
export interface CallLimits {
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** The calls of an upload. */
export interface UploadClient {
  beginUpload(
    request: MessageInitShape<typeof BeginUploadRequestSchema>,
    options?: CallLimits,
  ): Promise<BeginUploadResponse>;
  putChunks(
    requests: AsyncIterable<MessageInitShape<typeof PutChunksRequestSchema>>,
    options?: CallLimits,
  ): Promise<PutChunksResponse>;
  commitCheckpoint(
    request: MessageInitShape<typeof CommitCheckpointRequestSchema>,
    options?: CallLimits,
  ): Promise<CommitCheckpointResponse>;
}

/** The call of a download. */
export interface StreamClient {
  streamCheckpoint(
    request: MessageInitShape<typeof StreamCheckpointRequestSchema>,
    options?: CallLimits,
  ): AsyncIterable<StreamCheckpointResponse>;
}
