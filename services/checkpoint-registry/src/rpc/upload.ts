// BeginUpload, PutChunks, CommitCheckpoint.
import { randomUUID } from "node:crypto";
import type { HandlerContext } from "@connectrpc/connect";
import { checkpointBytes, verifyManifest } from "@covenant/checkpoints";
import { bytesEqual, fromHex, sha256, toHex } from "@covenant/contracts";
import {
  type BeginUploadRequest,
  CheckpointStage,
  type CommitCheckpointRequest,
  type PutChunksRequest,
} from "@covenant/contracts/registry";
import { CovenantError } from "@covenant/runtime";
import {
  beginUpload,
  commitUpload,
  expectedChunks,
  findUpload,
  touchUpload,
  type UploadRow,
} from "../store/upload-index.ts";
import { manifestOf, type RegistryModules, uploaderOf } from "./modules.ts";

/** Checks the manifest and answers with what is missing; the same call again resumes. */
export async function handleBeginUpload(
  request: BeginUploadRequest,
  context: HandlerContext,
  modules: RegistryModules,
) {
  const { manifest } = request;
  if (!manifest) throw new CovenantError("COV_INVALID_ARGUMENT", "manifest is missing");
  const uploader = uploaderOf(context);
  verifyManifest(manifest, uploader.trusted ? {} : { signer: uploader.owner });
  if (!uploader.trusted && manifest.stage === CheckpointStage.RELEASE) {
    throw new CovenantError("COV_PERMISSION_DENIED", "Participants do not release checkpoints", {
      remedy: "Upload it at another stage; the operator releases.",
    });
  }
  const bytes = checkpointBytes(manifest);
  const { maxCheckpointBytes } = modules.limits;
  if (bytes > maxCheckpointBytes) {
    const message = `The checkpoint has ${bytes} bytes, at most ${maxCheckpointBytes} are taken`;
    throw new CovenantError("COV_CHECKPOINT_TOO_LARGE", message, {
      metadata: { bytes, maxCheckpointBytes },
    });
  }
  const { upload, missing } = await beginUpload(modules.database, manifest, uploader, {
    newId: randomUUID(),
    nowMs: modules.clock.nowMs(),
    limits: modules.limits,
  });
  return {
    uploadId: upload.upload_id,
    missing: missing.map(fromHex),
    expiresAtMs: BigInt(upload.expires_at_ms),
  };
}

/** Stores chunks one by one; each is durable before the next is read, so a broken stream loses at most one. */
export async function handlePutChunks(
  requests: AsyncIterable<PutChunksRequest>,
  context: HandlerContext,
  modules: RegistryModules,
) {
  const { owner } = uploaderOf(context);
  let upload: UploadRow | undefined;
  let expected = new Map<string, number>();
  let storedChunks = 0;
  let storedBytes = 0;
  for await (const request of requests) {
    if (!upload) {
      upload = await findUpload(modules.database, request.uploadId, owner, modules.clock.nowMs());
      expected = expectedChunks(manifestOf(upload));
    }
    if (request.uploadId !== upload.upload_id) {
      throw new CovenantError("COV_INVALID_ARGUMENT", "One PutChunks call serves one upload");
    }
    const hash = checkChunk(request, expected);
    if (await modules.vault.put(hash, request.data)) {
      storedChunks += 1;
      storedBytes += request.data.byteLength;
    }
    const expiresAtMs = modules.clock.nowMs() + modules.limits.uploadExpiryMs;
    await touchUpload(modules.database, upload.upload_id, expiresAtMs);
  }
  return { storedChunks, storedBytes: BigInt(storedBytes) };
}

/** The chunk's hash in hexadecimal, when it belongs to the upload and its bytes are what it says. */
function checkChunk(request: PutChunksRequest, expected: ReadonlyMap<string, number>): string {
  const hash = toHex(request.sha256);
  const sizeBytes = expected.get(hash);
  if (sizeBytes === undefined) {
    throw new CovenantError("COV_INVALID_ARGUMENT", "The manifest has no such chunk", {
      metadata: { chunk: hash.slice(0, 64) },
    });
  }
  const { data } = request;
  if (data.byteLength === sizeBytes && bytesEqual(sha256(data), request.sha256)) return hash;
  const message = `Chunk ${hash} does not have the content that its hash names`;
  throw new CovenantError("COV_CHECKPOINT_CHUNK_MISMATCH", message, { metadata: { chunk: hash } });
}

/** Publishes a complete upload. */
export async function handleCommitCheckpoint(
  request: CommitCheckpointRequest,
  context: HandlerContext,
  modules: RegistryModules,
) {
  const { owner } = uploaderOf(context);
  const nowMs = modules.clock.nowMs();
  const upload = await findUpload(modules.database, request.uploadId, owner, nowMs);
  const manifest = manifestOf(upload);
  const { sequence, isNew } = await commitUpload(modules.database, upload, manifest, nowMs);
  if (isNew) {
    const { runId, stage, version } = manifest;
    const facts = { root: upload.root, runId, stage, version, sequence };
    modules.logger.info({ ...facts, owner }, "checkpoint committed");
    modules.announcements.ring();
  }
  return { root: fromHex(upload.root), sequence: BigInt(sequence) };
}
