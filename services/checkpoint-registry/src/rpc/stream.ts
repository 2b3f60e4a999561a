// StreamCheckpoint and WatchCheckpoints: pulled by the reader, so that a slow one holds back the disk and not memory.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { chunkPlaces, hasBit } from "@covenant/checkpoints";
import { toHex } from "@covenant/contracts";
import type {
  StreamCheckpointRequest,
  StreamCheckpointResponseSchema,
  WatchCheckpointsRequest,
  WatchCheckpointsResponseSchema,
} from "@covenant/contracts/registry";
import { CovenantError } from "@covenant/runtime";
import { untilAborted } from "../announcements.ts";
import { nextCheckpoint } from "../store/checkpoint-index.ts";
import { manifestOf, type RegistryModules, requireCheckpoint } from "./modules.ts";

/** Counts what is open against a limit. */
export class OpenStreams {
  readonly #what: string;
  readonly #max: number;
  #count = 0;

  constructor(options: { what: string; max: number }) {
    this.#what = options.what;
    this.#max = options.max;
  }

  /** Takes a place until the returned object is disposed; `COV_RESOURCE_EXHAUSTED` when there is none. */
  enter(): Disposable {
    if (this.#count >= this.#max) {
      const message = `${this.#count} ${this.#what} streams are open`;
      throw new CovenantError("COV_RESOURCE_EXHAUSTED", message, { metadata: { max: this.#max } });
    }
    this.#count += 1;
    return {
      [Symbol.dispose]: () => {
        this.#count -= 1;
      },
    };
  }
}

/** The manifest, then the chunks that the caller lacks, in load order; each is read when the one before is sent. */
export async function* handleStreamCheckpoint(
  request: StreamCheckpointRequest,
  context: HandlerContext,
  modules: RegistryModules,
  open: OpenStreams,
): AsyncGenerator<MessageInitShape<typeof StreamCheckpointResponseSchema>> {
  using _place = open.enter();
  const row = await requireCheckpoint(modules, request.root);
  const manifest = manifestOf(row);
  const places = chunkPlaces(manifest);
  if (request.haveBitmap.length > Math.ceil(places.length / 8)) {
    throw new CovenantError("COV_INVALID_ARGUMENT", "have_bitmap has more bits than chunks", {
      metadata: { bytes: request.haveBitmap.length, chunks: places.length },
    });
  }
  yield { item: { case: "manifest", value: manifest } };
  for (const { index, sha256, sizeBytes } of places) {
    if (hasBit(request.haveBitmap, index)) continue;
    context.signal.throwIfAborted();
    const data = await modules.vault.get(toHex(sha256), sizeBytes);
    yield { item: { case: "chunk", value: { index, data } } };
  }
}

/** Checkpoints after a sequence: those that exist, then each as it is committed, until the caller leaves. */
export async function* handleWatchCheckpoints(
  request: WatchCheckpointsRequest,
  context: HandlerContext,
  modules: RegistryModules,
  open: OpenStreams,
): AsyncGenerator<MessageInitShape<typeof WatchCheckpointsResponseSchema>> {
  using _place = open.enter();
  if (request.afterSequence > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new CovenantError("COV_INVALID_ARGUMENT", "after_sequence is larger than any sequence");
  }
  const runId = request.runId === "" ? undefined : request.runId;
  let after = Number(request.afterSequence);
  while (!context.signal.aborted) {
    const rung = modules.announcements.next();
    const row = await nextCheckpoint(modules.database, runId, after);
    if (row) {
      after = row.sequence;
      yield { sequence: BigInt(row.sequence), manifest: manifestOf(row) };
    } else {
      await untilAborted(rung, context.signal);
    }
  }
}
