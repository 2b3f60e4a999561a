// Receives a checkpoint into a directory: verified chunk by chunk, durable chunk by chunk, visible all at once.
import { access } from "node:fs/promises";
import { bytesEqual } from "@covenant/contracts";
import type { CheckpointManifest, StreamCheckpointResponse } from "@covenant/contracts/registry";
import { type Clock, CovenantError, systemClock } from "@covenant/runtime";
import { type ChunkPlace, checkpointBytes } from "../format/chunks.ts";
import { CheckpointError } from "../format/errors.ts";
import { manifestBytes, verifyManifest } from "../format/manifest.ts";
import { ChunkStore, readStoredManifest } from "./chunk-store.ts";
import type { StreamClient } from "./client.ts";
import { RetryBudget } from "./retry.ts";

/** Options of {@link receiveCheckpoint}. */
export interface ReceiveOptions {
  /** Where the checkpoint's files will be; must not exist, unless it holds this checkpoint already. */
  directory: string;
  /** SS58 address that must have signed the manifest. */
  signer?: string;
  signal?: AbortSignal;
  /** Longest wait for the next chunk. */
  chunkTimeoutMs?: number;
  /** Longest single stream; a transfer that takes longer goes on with another one. */
  streamTimeoutMs?: number;
  /** Larger checkpoints are refused before anything is written. */
  maxBytes?: number;
  /** Called after each chunk became durable. */
  onChunk?: (place: ChunkPlace, heldChunks: number, totalChunks: number) => void;
}

/** What a transfer did. */
export interface ReceiveResult {
  manifest: CheckpointManifest;
  /** Paths below the directory, in manifest order. */
  files: string[];
  /** Size of the checkpoint. */
  bytes: number;
  seconds: number;
  /** Chunks that an earlier attempt had left here and that were not sent again. */
  resumedChunks: number;
}

const CHUNK_TIMEOUT_MS_DEFAULT = 30_000;
const STREAM_TIMEOUT_MS_DEFAULT = 600_000;
const BYTES_MAX_DEFAULT = 2 ** 36;

/**
 * Receives the checkpoint named `root`. Interrupted at any point, calling it again continues behind the last durable
 * chunk; nothing but the complete, verified checkpoint ever appears under `directory`. Throws `CovenantError` or
 * `CheckpointError`: wrong content and a full disk at once, transient errors when the retry budget is spent.
 */
export async function receiveCheckpoint(
  client: StreamClient,
  root: Uint8Array,
  options: ReceiveOptions,
  modules: { clock: Clock } = { clock: systemClock },
): Promise<ReceiveResult> {
  const startedAtMs = modules.clock.nowMs();
  const existing = await readExisting(options.directory, root);
  const result = (manifest: CheckpointManifest, resumedChunks: number): ReceiveResult => ({
    manifest,
    files: manifest.files.map(({ path }) => path),
    bytes: checkpointBytes(manifest),
    seconds: (modules.clock.nowMs() - startedAtMs) / 1000,
    resumedChunks,
  });
  if (existing) {
    checkManifest(existing, root, options);
    return result(
      existing,
      existing.files.reduce((sum, file) => sum + file.chunkSha256.length, 0),
    );
  }
  const partial = `${options.directory}.partial`;
  let store = await ChunkStore.resume(partial, root);
  if (store) checkManifest(store.manifest, root, options);
  const resumedChunks = store?.heldCount ?? 0;
  const budget = new RetryBudget(options, modules);
  while (!store?.isComplete) {
    const heldBefore = store?.heldCount ?? 0;
    try {
      for await (const message of openStream(client, root, store, options)) {
        if (store && message.item.case === "chunk") {
          const { index, data } = message.item.value;
          await store.write(index, data);
          options.onChunk?.(store.places[index]!, store.heldCount, store.places.length);
        } else {
          store = await acceptManifest(message, store, root, partial, options);
        }
      }
      if (!store?.isComplete && (store?.heldCount ?? 0) === heldBefore) throw stalled();
    } catch (error) {
      if ((store?.heldCount ?? 0) > heldBefore) budget.progressed();
      await budget.failed(error);
    }
  }
  await store.assemble(options.directory);
  return result(store.manifest, resumedChunks);
}

async function readExisting(
  directory: string,
  root: Uint8Array,
): Promise<CheckpointManifest | undefined> {
  const manifest = await readStoredManifest(directory);
  if (manifest && bytesEqual(manifest.root, root)) return manifest;
  const exists = await access(directory).then(
    () => true,
    () => false,
  );
  if (!exists) return undefined;
  throw new CovenantError("COV_ALREADY_EXISTS", `${directory} exists and is another checkpoint`, {
    metadata: { directory },
  });
}

/** The first message of every stream: begins the store, or must repeat what the store began with. */
async function acceptManifest(
  message: StreamCheckpointResponse,
  store: ChunkStore | undefined,
  root: Uint8Array,
  partial: string,
  options: ReceiveOptions,
): Promise<ChunkStore> {
  if (message.item.case !== "manifest") {
    throw new CheckpointError(
      "COV_CHECKPOINT_MANIFEST_INVALID",
      "A stream begins with no manifest",
    );
  }
  const manifest = message.item.value;
  checkManifest(manifest, root, options);
  if (!store) return ChunkStore.create(partial, manifest);
  if (bytesEqual(manifestBytes(manifest), manifestBytes(store.manifest))) return store;
  const text = "The source describes the same content in another way than before";
  throw new CheckpointError("COV_CHECKPOINT_MANIFEST_INVALID", text);
}

function checkManifest(
  manifest: CheckpointManifest,
  root: Uint8Array,
  options: ReceiveOptions,
): void {
  const { signer, maxBytes = BYTES_MAX_DEFAULT } = options;
  verifyManifest(manifest, signer === undefined ? { root } : { root, signer });
  const bytes = checkpointBytes(manifest);
  if (bytes <= maxBytes) return;
  const text = `The checkpoint has ${bytes} bytes, at most ${maxBytes} are taken`;
  throw new CheckpointError("COV_CHECKPOINT_TOO_LARGE", text);
}

/** The messages of one stream; a message that does not come in time ends it with a transient error. */
async function* openStream(
  client: StreamClient,
  root: Uint8Array,
  store: ChunkStore | undefined,
  options: ReceiveOptions,
): AsyncGenerator<StreamCheckpointResponse> {
  const stall = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stall.signal]) : stall.signal;
  signal.throwIfAborted();
  const request = { root, haveBitmap: store?.bitmap() ?? new Uint8Array() };
  const timeoutMs = options.streamTimeoutMs ?? STREAM_TIMEOUT_MS_DEFAULT;
  const messages = client.streamCheckpoint(request, { timeoutMs, signal })[Symbol.asyncIterator]();
  // A client that ignores its signal must not hold the caller.
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => undefined);
  signal.addEventListener("abort", () => aborted.reject(signal.reason), { once: true });
  try {
    for (;;) {
      const timer = setTimeout(
        () => stall.abort(stalled()),
        options.chunkTimeoutMs ?? CHUNK_TIMEOUT_MS_DEFAULT,
      );
      const step = Promise.race([messages.next(), aborted.promise]);
      const next = await step.finally(() => clearTimeout(timer));
      if (next.done) return;
      yield next.value;
    }
  } catch (error) {
    throw stall.signal.aborted ? stall.signal.reason : error;
  } finally {
    stall.abort();
  }
}

function stalled(): CovenantError {
  return new CovenantError("COV_CHECKPOINT_TRANSFER_STALLED", "No chunk came in time");
}
