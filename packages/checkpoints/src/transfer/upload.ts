// Uploads a checkpoint: asks what is missing, sends that, commits. Interrupted, it goes on with what is missing.
import { bytesEqual, toHex } from "@covenant/contracts";
import type { CheckpointManifest } from "@covenant/contracts/registry";
import { type Clock, CovenantError, systemClock } from "@covenant/runtime";
import { type ChunkPlace, chunkPlaces } from "../format/chunks.ts";
import { CheckpointError } from "../format/errors.ts";
import { verifyManifest } from "../format/manifest.ts";
import type { CheckpointFileData } from "../format/model-directory.ts";
import type { UploadClient } from "./client.ts";
import { RetryBudget } from "./retry.ts";

/** Gives the bytes of one chunk, for content that is not in memory as a whole. */
export type ChunkReader = (place: ChunkPlace) => Promise<Uint8Array>;

/** Options of {@link uploadCheckpoint}. */
export interface UploadOptions {
  signal?: AbortSignal;
  /** Time for one chunk to leave, and for each call without chunks. */
  chunkTimeoutMs?: number;
}

/** What an upload did. */
export interface UploadResult {
  root: Uint8Array;
  /** Position in the registry's sequence. */
  sequence: bigint;
  /** Chunks that were sent; the others the registry held already. */
  sentChunks: number;
  sentBytes: number;
}

const CHUNK_TIMEOUT_MS_DEFAULT = 30_000;
/** Chunks in one call: 64 MiB, so that a lost connection loses the answer to no more than that. */
const CHUNKS_PER_CALL = 16;

/**
 * Uploads and commits; resolves when the checkpoint is visible. Repeating it is harmless. Retries transient errors
 * within a budget that every stored chunk renews; throws `CovenantError`.
 */
export async function uploadCheckpoint(
  client: UploadClient,
  source: readonly CheckpointFileData[] | ChunkReader,
  manifest: CheckpointManifest,
  options: UploadOptions = {},
  modules: { clock: Clock } = { clock: systemClock },
): Promise<UploadResult> {
  verifyManifest(manifest);
  const read = typeof source === "function" ? source : readerOf(source);
  const places = new Map(chunkPlaces(manifest).map((place) => [toHex(place.sha256), place]));
  const timeoutMs = options.chunkTimeoutMs ?? CHUNK_TIMEOUT_MS_DEFAULT;
  const limits = { timeoutMs, ...(options.signal ? { signal: options.signal } : {}) };
  const budget = new RetryBudget(options, modules);
  const sent = { chunks: 0, bytes: 0 };
  let fewestMissing = Number.POSITIVE_INFINITY;
  let allSent = false;
  for (;;) {
    try {
      const { uploadId, missing } = await client.beginUpload({ manifest }, limits);
      if (missing.length === 0) {
        const { root, sequence } = await client.commitCheckpoint({ uploadId }, limits);
        if (!bytesEqual(root, manifest.root)) throw wrongAnswer("committed another root");
        return { root, sequence, sentChunks: sent.chunks, sentBytes: sent.bytes };
      }
      if (missing.length < fewestMissing) budget.progressed();
      else if (allSent) throw stalled(missing.length);
      fewestMissing = Math.min(fewestMissing, missing.length);
      allSent = false;
      const wanted = missing.map((hash) => {
        const place = places.get(toHex(hash));
        if (!place) throw wrongAnswer("asked for a chunk that the manifest does not have");
        return place;
      });
      await sendChunks(client, uploadId, wanted, read, { ...limits, sent });
      allSent = true;
    } catch (error) {
      await budget.failed(error);
    }
  }
}

async function sendChunks(
  client: UploadClient,
  uploadId: string,
  places: readonly ChunkPlace[],
  read: ChunkReader,
  options: { timeoutMs: number; signal?: AbortSignal; sent: { chunks: number; bytes: number } },
): Promise<void> {
  for (let first = 0; first < places.length; first += CHUNKS_PER_CALL) {
    const part = places.slice(first, first + CHUNKS_PER_CALL);
    const stall = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, stall.signal]) : stall.signal;
    let timer: NodeJS.Timeout | undefined;
    const watch = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => stall.abort(stalled(places.length - first)), options.timeoutMs);
    };
    async function* requests() {
      for (const place of part) {
        const data = await read(place);
        watch();
        yield { uploadId, sha256: place.sha256, data };
        options.sent.chunks += 1;
        options.sent.bytes += data.byteLength;
      }
    }
    try {
      const timeoutMs = options.timeoutMs * (part.length + 1);
      await client.putChunks(requests(), { timeoutMs, signal });
    } catch (error) {
      throw stall.signal.aborted ? stall.signal.reason : error;
    } finally {
      clearTimeout(timer);
    }
  }
}

function readerOf(files: readonly CheckpointFileData[]): ChunkReader {
  const byPath = new Map(files.map(({ path, data }) => [path, data]));
  return async ({ path, offset, sizeBytes }) => {
    const data = byPath.get(path)?.subarray(offset, offset + sizeBytes);
    if (data?.byteLength === sizeBytes) return data;
    throw new CheckpointError("COV_CHECKPOINT_FILES_INVALID", `${path} is not what was described`);
  };
}

function stalled(missing: number): CovenantError {
  return new CovenantError(
    "COV_CHECKPOINT_TRANSFER_STALLED",
    `Upload stands at ${missing} chunks`,
    {
      metadata: { missing },
    },
  );
}

function wrongAnswer(what: string): CheckpointError {
  return new CheckpointError("COV_CHECKPOINT_MANIFEST_INVALID", `The registry ${what}`);
}
