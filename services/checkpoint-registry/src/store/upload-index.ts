// Uploads in the index: begun, resumed, committed, expired. Each step is one transaction.
import {
  CheckpointError,
  checkpointBytes,
  chunkPlaces,
  manifestBytes,
} from "@covenant/checkpoints";
import { toHex } from "@covenant/contracts";
import type { CheckpointManifest } from "@covenant/contracts/registry";
import { CovenantError } from "@covenant/runtime";
import type { Kysely, Selectable, Transaction } from "kysely";
import type { RegistryLimits } from "../config.ts";
import type { CheckpointRow } from "./checkpoint-index.ts";
import { heldChunkSizes, holdChunks, missingChunks, storedBytes } from "./chunk-index.ts";
import type { RegistryTables, UploadTable } from "./schema.ts";

/** A row of the uploads table. */
export type UploadRow = Selectable<UploadTable>;

/** Who uploads. */
export interface Uploader {
  /** Hotkey address, or "service:<name>". */
  owner: string;
  /** A service or the operator, not a participant. */
  trusted: boolean;
}

type Database = Kysely<RegistryTables>;

/**
 * Begins an upload, or finds the caller's open one of the same checkpoint and extends it. `newId` is used for a new
 * one. Throws when a limit is reached or the root is registered under another description.
 */
export async function beginUpload(
  database: Database,
  manifest: CheckpointManifest,
  uploader: Uploader,
  options: { newId: string; nowMs: number; limits: RegistryLimits },
): Promise<{ upload: UploadRow; missing: string[] }> {
  const { limits, nowMs } = options;
  const root = toHex(manifest.root);
  return database.transaction().execute(async (transaction) => {
    checkRoot(await checkpointOf(transaction, root), manifest, uploader.trusted);
    const stored = manifestBytes(manifest);
    let upload = await transaction
      .selectFrom("uploads")
      .selectAll()
      .where("owner", "=", uploader.owner)
      .where("root", "=", root)
      .where("committed_sequence", "is", null)
      .where("expires_at_ms", ">", nowMs)
      .executeTakeFirst();
    const expires_at_ms = nowMs + limits.uploadExpiryMs;
    if (upload) {
      upload = { ...upload, manifest: stored, expires_at_ms };
      await transaction
        .updateTable("uploads")
        .set({ manifest: stored, expires_at_ms })
        .where("upload_id", "=", upload.upload_id)
        .execute();
    } else {
      await checkLimits(transaction, manifest, uploader.owner, nowMs, limits);
      upload = {
        upload_id: options.newId,
        owner: uploader.owner,
        trusted: uploader.trusted ? 1 : 0,
        root,
        manifest: stored,
        committed_sequence: null,
        expires_at_ms,
      };
      await transaction.insertInto("uploads").values(upload).execute();
    }
    const holder = `u:${upload.upload_id}`;
    const hashes = new Set(chunkPlaces(manifest).map((place) => toHex(place.sha256)));
    await holdChunks(transaction, holder, [...hashes]);
    const absent = new Set(await missingChunks(transaction, holder));
    return { upload, missing: [...hashes].filter((hash) => absent.has(hash)) };
  });
}

/** The caller's upload; `COV_CHECKPOINT_UPLOAD_UNKNOWN` for anybody else's, so that ids tell nothing. */
export async function findUpload(
  database: Database | Transaction<RegistryTables>,
  uploadId: string,
  owner: string,
  nowMs: number,
): Promise<UploadRow> {
  const upload = await database
    .selectFrom("uploads")
    .selectAll()
    .where("upload_id", "=", uploadId)
    .where("owner", "=", owner)
    .where("expires_at_ms", ">", nowMs)
    .executeTakeFirst();
  if (upload) return upload;
  throw new CovenantError("COV_CHECKPOINT_UPLOAD_UNKNOWN", "No such upload of this caller", {
    metadata: { uploadId: uploadId.slice(0, 64) },
  });
}

/** Pushes the expiry of an upload that is being worked on. */
export async function touchUpload(
  database: Database,
  uploadId: string,
  expiresAtMs: number,
): Promise<void> {
  await database
    .updateTable("uploads")
    .set({ expires_at_ms: expiresAtMs })
    .where("upload_id", "=", uploadId)
    .execute();
}

/** Makes a complete upload visible; repeating gives the same answer. `COV_CHECKPOINT_INCOMPLETE` while chunks lack. */
export async function commitUpload(
  database: Database,
  upload: UploadRow,
  manifest: CheckpointManifest,
  nowMs: number,
): Promise<{ sequence: number; isNew: boolean }> {
  return database.transaction().execute(async (transaction) => {
    const { committed_sequence } = await findUpload(
      transaction,
      upload.upload_id,
      upload.owner,
      nowMs,
    );
    if (committed_sequence !== null) return { sequence: committed_sequence, isNew: false };
    const from = `u:${upload.upload_id}`;
    await checkComplete(transaction, from, manifest);
    const existing = await checkpointOf(transaction, upload.root);
    checkRoot(existing, manifest, upload.trusted === 1);
    const keep = existing && describesSame(existing, manifest);
    const sequence = keep
      ? existing.sequence
      : await publish(transaction, upload, manifest, nowMs, existing);
    await transaction.deleteFrom("chunk_holders").where("holder", "=", from).execute();
    await transaction
      .updateTable("uploads")
      .set({ committed_sequence: sequence })
      .where("upload_id", "=", upload.upload_id)
      .execute();
    return { sequence, isNew: !keep };
  });
}

/** Drops uploads that have expired; what only they needed is garbage then. Returns how many open ones went. */
export async function expireUploads(database: Database, nowMs: number): Promise<number> {
  return database.transaction().execute(async (transaction) => {
    const expired = await transaction
      .selectFrom("uploads")
      .select(["upload_id", "committed_sequence"])
      .where("expires_at_ms", "<=", nowMs)
      .execute();
    for (const { upload_id } of expired) {
      await transaction
        .deleteFrom("chunk_holders")
        .where("holder", "=", `u:${upload_id}`)
        .execute();
      await transaction.deleteFrom("uploads").where("upload_id", "=", upload_id).execute();
    }
    return expired.filter((row) => row.committed_sequence === null).length;
  });
}

async function checkComplete(
  transaction: Transaction<RegistryTables>,
  holder: string,
  manifest: CheckpointManifest,
): Promise<void> {
  const stored = await heldChunkSizes(transaction, holder);
  const expected = [...expectedChunks(manifest)];
  const missing = expected.filter(([hash]) => !stored.has(hash)).length;
  if (missing > 0) {
    throw new CovenantError("COV_CHECKPOINT_INCOMPLETE", `${missing} chunks are missing`, {
      metadata: { missing },
    });
  }
  // A manifest may name a chunk that exists, but claim another size for it.
  const wrong = expected.find(([hash, sizeBytes]) => stored.get(hash) !== sizeBytes);
  if (!wrong) return;
  const text = `Chunk ${wrong[0]} has not the size that the manifest says`;
  throw new CheckpointError("COV_CHECKPOINT_CHUNK_MISMATCH", text);
}

async function publish(
  transaction: Transaction<RegistryTables>,
  upload: UploadRow,
  manifest: CheckpointManifest,
  nowMs: number,
  replaced: CheckpointRow | undefined,
): Promise<number> {
  if (replaced) {
    await transaction.deleteFrom("checkpoints").where("root", "=", upload.root).execute();
  }
  await transaction
    .insertInto("chunk_holders")
    .columns(["holder", "sha256"])
    .expression((builder) =>
      builder
        .selectFrom("chunk_holders")
        .select(({ val }) => [val(`c:${upload.root}`).as("holder"), "sha256"])
        .where("holder", "=", `u:${upload.upload_id}`),
    )
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  const chunkSizes = await heldChunkSizes(transaction, `c:${upload.root}`);
  const { sequence } = await transaction
    .insertInto("checkpoints")
    .values({
      root: upload.root,
      run_id: manifest.runId,
      kind: manifest.kind,
      stage: manifest.stage,
      version: manifest.version,
      parent_root: toHex(manifest.parentRoot),
      signer: manifest.signature?.hotkey ?? "",
      trusted: upload.trusted,
      manifest: upload.manifest,
      stored_bytes: [...chunkSizes.values()].reduce((sum, bytes) => sum + bytes, 0),
      pinned: replaced?.pinned ?? 0,
      committed_at_ms: nowMs,
    })
    .returning("sequence")
    .executeTakeFirstOrThrow();
  return sequence;
}

async function checkpointOf(
  transaction: Transaction<RegistryTables>,
  root: string,
): Promise<CheckpointRow | undefined> {
  return transaction
    .selectFrom("checkpoints")
    .selectAll()
    .where("root", "=", root)
    .executeTakeFirst();
}

/** Same content under the same description, perhaps made again after a restart: the first one stands. */
function describesSame(existing: CheckpointRow, manifest: CheckpointManifest): boolean {
  return (
    existing.signer === manifest.signature?.hotkey &&
    existing.run_id === manifest.runId &&
    existing.stage === manifest.stage &&
    existing.version === manifest.version
  );
}

/**
 * One root, one description. The operator's services may replace a participant's: exports are reproducible, so any
 * participant could otherwise take the root of the run's next checkpoint first.
 */
function checkRoot(
  existing: CheckpointRow | undefined,
  manifest: CheckpointManifest,
  trusted: boolean,
): void {
  if (!existing || describesSame(existing, manifest)) return;
  if (trusted && existing.trusted === 0) return;
  const { run_id, version, signer } = existing;
  throw new CovenantError(
    "COV_CHECKPOINT_ROOT_TAKEN",
    `The content is registered as version ${version} of ${run_id}, signed by ${signer}`,
    { metadata: { runId: run_id, version, signer } },
  );
}

async function checkLimits(
  transaction: Transaction<RegistryTables>,
  manifest: CheckpointManifest,
  owner: string,
  nowMs: number,
  limits: RegistryLimits,
): Promise<void> {
  const open = await transaction
    .selectFrom("uploads")
    .select(["owner", "manifest"])
    .where("committed_sequence", "is", null)
    .where("expires_at_ms", ">", nowMs)
    .execute();
  const own = open.filter((upload) => upload.owner === owner).length;
  if (open.length >= limits.maxOpenUploads || own >= limits.maxOpenUploadsPerCaller) {
    throw new CovenantError("COV_CHECKPOINT_UPLOADS_LIMIT", `${open.length} uploads are open`, {
      metadata: { open: open.length, ofCaller: own, maxOpenUploads: limits.maxOpenUploads },
    });
  }
  const bytes = checkpointBytes(manifest);
  const total = await storedBytes(transaction);
  if (total + bytes > limits.maxStoredBytes) {
    throw new CovenantError("COV_RESOURCE_EXHAUSTED", "The registry's storage limit is reached", {
      remedy: "Prune old checkpoints, or raise limits.maxStoredBytes.",
      metadata: { storedBytes: total, bytes, maxStoredBytes: limits.maxStoredBytes },
    });
  }
}

/** Sizes by hash (hexadecimal) of the chunks an upload may send. */
export function expectedChunks(manifest: CheckpointManifest): Map<string, number> {
  return new Map(chunkPlaces(manifest).map((place) => [toHex(place.sha256), place.sizeBytes]));
}
