// GetManifest, ListCheckpoints, Pin, Prune, Verify.
import type { HandlerContext } from "@connectrpc/connect";
import { chunkPlaces } from "@covenant/checkpoints";
import { fromHex, toHex } from "@covenant/contracts";
import type {
  CheckpointKind,
  CheckpointStage,
  GetManifestRequest,
  ListCheckpointsRequest,
  PinRequest,
  PruneRequest,
  VerifyRequest,
} from "@covenant/contracts/registry";
import { CovenantError } from "@covenant/runtime";
import { type PruneCandidate, planPrune } from "../prune-plan.ts";
import {
  type CheckpointRow,
  listCheckpoints,
  removeCheckpoints,
  setPinned,
} from "../store/checkpoint-index.ts";
import { manifestOf, type RegistryModules, requireCheckpoint } from "./modules.ts";

const PAGE_SIZE_DEFAULT = 50;
const PAGE_SIZE_MAX = 200;
/** Manifests of one page; a page ends early rather than exceed what one message may hold. */
const PAGE_BYTES_MAX = 8 << 20;
/** Checkpoints that one prune looks at. */
const PRUNE_ROWS_MAX = 10_000;

/** The manifest of a root. */
export async function handleGetManifest(request: GetManifestRequest, modules: RegistryModules) {
  return { manifest: manifestOf(await requireCheckpoint(modules, request.root)) };
}

/** A page of checkpoints, newest first. */
export async function handleListCheckpoints(
  request: ListCheckpointsRequest,
  modules: RegistryModules,
) {
  const limit = Math.min(request.pageSize || PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX);
  const rows = await listCheckpoints(modules.database, {
    ...(request.runId !== "" && { runId: request.runId }),
    ...(request.stage !== 0 && { stage: request.stage }),
    ...(request.pageToken !== "" && { beforeSequence: parsePageToken(request.pageToken) }),
    limit: limit + 1,
  });
  const page = pageOf(rows.slice(0, limit));
  const more = rows.length > page.length;
  return {
    checkpoints: page.map((row) => ({
      sequence: BigInt(row.sequence),
      manifest: manifestOf(row),
      pinned: row.pinned === 1,
      storedBytes: BigInt(row.stored_bytes),
    })),
    nextPageToken: more ? `before-${page.at(-1)!.sequence}` : "",
  };
}

/** The rows that fit into a message: at least one. */
function pageOf(rows: CheckpointRow[]): CheckpointRow[] {
  let bytes = 0;
  const end = rows.findIndex((row, i) => {
    bytes += row.manifest.byteLength;
    return i > 0 && bytes > PAGE_BYTES_MAX;
  });
  return end < 0 ? rows : rows.slice(0, end);
}

function parsePageToken(token: string): number {
  const match = /^before-(\d{1,15})$/.exec(token);
  if (match) return Number(match[1]);
  throw new CovenantError("COV_INVALID_ARGUMENT", "page_token is not one of this server", {
    metadata: { field: "page_token" },
  });
}

/** Pins or unpins; repeating is harmless. */
export async function handlePin(request: PinRequest, modules: RegistryModules) {
  const { root } = await requireCheckpoint(modules, request.root);
  await setPinned(modules.database, root, request.pinned);
  return { pinned: request.pinned };
}

/** Removes what the plan says, then the chunks that nobody needs any more. */
export async function handlePrune(request: PruneRequest, modules: RegistryModules) {
  if (request.runId === "" || request.keepNewest < 1) {
    throw new CovenantError(
      "COV_INVALID_ARGUMENT",
      "run_id and keep_newest (1 or more) are needed",
    );
  }
  const filter = { runId: request.runId, limit: PRUNE_ROWS_MAX };
  const rows = await listCheckpoints(modules.database, filter);
  const plan = planPrune(rows.map(candidateOf), request.keepNewest);
  const { removed, freedBytes } = await removeCheckpoints(
    modules.database,
    plan.map(({ root }) => root),
    { dryRun: request.dryRun },
  );
  if (!request.dryRun) {
    await modules.vault.collect();
    modules.logger.info({ runId: request.runId, removed: removed.length, freedBytes }, "pruned");
  }
  return { removedRoots: removed.map(fromHex), freedBytes: BigInt(freedBytes) };
}

function candidateOf(row: CheckpointRow): PruneCandidate {
  return {
    root: row.root,
    parentRoot: row.parent_root,
    kind: row.kind as CheckpointKind,
    stage: row.stage as CheckpointStage,
    sequence: row.sequence,
    pinned: row.pinned === 1,
  };
}

/** Reads every chunk back. Damaged ones are forgotten, so that uploading the checkpoint again repairs it. */
export async function handleVerify(
  request: VerifyRequest,
  context: HandlerContext,
  modules: RegistryModules,
) {
  const row = await requireCheckpoint(modules, request.root);
  const badChunks: number[] = [];
  for (const { index, sha256, sizeBytes } of chunkPlaces(manifestOf(row))) {
    context.signal.throwIfAborted();
    if (!(await modules.vault.verify(toHex(sha256), sizeBytes))) badChunks.push(index);
  }
  if (badChunks.length > 0) {
    modules.logger.error({ root: row.root, badChunks: badChunks.length }, "checkpoint is damaged");
  }
  return { intact: badChunks.length === 0, badChunks };
}
