// The manifest: what a checkpoint consists of and where it comes from, signed by who made it.
import { create } from "@bufbuild/protobuf";
import {
  bytesEqual,
  canonicalBytes,
  type Hotkey,
  signMessage,
  toHex,
  verifyMessage,
} from "@covenant/contracts";
import {
  type CheckpointFile,
  CheckpointFileSchema,
  CheckpointKind,
  type CheckpointManifest,
  CheckpointManifestSchema,
  type CheckpointStage,
} from "@covenant/contracts/registry";
import { CHUNK_BYTES, checkpointRoot, chunkCount, chunkPlaces, hashChunks } from "./chunks.ts";
import { CheckpointError } from "./errors.ts";
import type { CheckpointFileData } from "./model-directory.ts";
import { firstBadPath } from "./paths.ts";

/** What a manifest says beyond its files. */
export interface ManifestFacts {
  runId: string;
  stage: CheckpointStage;
  /** Round (pretrain) or policy version (post-training). */
  version: number;
  /** Root of the checkpoint this one continues. */
  parentRoot?: Uint8Array;
  /** Root of the training state that the content was exported from. */
  trainingStateRoot?: Uint8Array;
  /** SPDX identifier. */
  licence?: string;
  /** Measured figures, for example `held_out_bits_per_byte`. */
  evaluation?: Readonly<Record<string, number>>;
  /** Unix milliseconds. */
  createdAtMs: number;
}

/** Limits of a manifest; all are checked before anything is computed from it. */
export const MANIFEST_LIMITS = {
  files: 4096,
  /** 1 TiB in chunks of 4 MiB; the manifest itself stays below 9 MiB. */
  chunks: 1 << 18,
  runIdChars: 64,
  licenceChars: 128,
  evaluations: 64,
  evaluationNameChars: 64,
} as const;

const RUN_ID = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Describes and signs a full checkpoint. Throws `CheckpointError` when the result would not verify. */
export function buildManifest(
  files: readonly CheckpointFileData[],
  facts: ManifestFacts,
  hotkey: Hotkey,
): CheckpointManifest {
  const described = files.map(({ path, data }) =>
    create(CheckpointFileSchema, {
      path,
      sizeBytes: BigInt(data.byteLength),
      chunkSha256: hashChunks(data),
    }),
  );
  return signManifest(described, facts, hotkey);
}

/** Like {@link buildManifest} for files whose chunks were hashed elsewhere, for example while reading from disk. */
export function signManifest(
  files: readonly CheckpointFile[],
  facts: ManifestFacts,
  hotkey: Hotkey,
): CheckpointManifest {
  const manifest = create(CheckpointManifestSchema, {
    runId: facts.runId,
    kind: CheckpointKind.FULL,
    stage: facts.stage,
    parentRoot: facts.parentRoot ?? new Uint8Array(),
    version: facts.version,
    files: [...files],
    root: checkpointRoot(files),
    trainingStateRoot: facts.trainingStateRoot ?? new Uint8Array(),
    licence: facts.licence ?? "",
    evaluation: { ...facts.evaluation },
    createdAtMs: BigInt(facts.createdAtMs),
  });
  manifest.signature = signMessage(CheckpointManifestSchema, manifest, hotkey);
  verifyManifest(manifest, { signer: hotkey.address });
  return manifest;
}

/** What the caller of {@link verifyManifest} knows already. */
export interface ManifestExpectation {
  root?: Uint8Array;
  /** SS58 address that must have signed. */
  signer?: string;
}

/**
 * Checks form, limits, paths, root and signature; cheap checks first. Throws `CheckpointError`:
 * `COV_CHECKPOINT_MANIFEST_INVALID`, `COV_CHECKPOINT_WRONG_ROOT`, `COV_CHECKPOINT_SIGNATURE`, and
 * `COV_CHECKPOINT_DELTA_UNSUPPORTED` for a delta, which this version cannot rebuild.
 */
export function verifyManifest(
  manifest: CheckpointManifest,
  expected: ManifestExpectation = {},
): void {
  if (manifest.kind === CheckpointKind.DELTA) {
    const message = "The checkpoint is a delta; this version stores and reads full checkpoints";
    throw new CheckpointError("COV_CHECKPOINT_DELTA_UNSUPPORTED", message);
  }
  checkFields(manifest);
  checkFiles(manifest.files);
  const { root } = manifest;
  if (!bytesEqual(root, checkpointRoot(manifest.files))) {
    const message = "The root is not the Merkle root of the chunks";
    throw new CheckpointError("COV_CHECKPOINT_WRONG_ROOT", message);
  }
  if (expected.root && !bytesEqual(root, expected.root)) {
    throw new CheckpointError("COV_CHECKPOINT_WRONG_ROOT", "The manifest is of another checkpoint");
  }
  if (!verifyMessage(CheckpointManifestSchema, manifest)) {
    throw new CheckpointError("COV_CHECKPOINT_SIGNATURE", "The manifest's signature is not valid");
  }
  if (expected.signer !== undefined && manifest.signature?.hotkey !== expected.signer) {
    const message = `The manifest is signed by ${manifest.signature?.hotkey}`;
    throw new CheckpointError("COV_CHECKPOINT_SIGNATURE", `${message}, not ${expected.signer}`);
  }
}

/** The bytes of a manifest that are stored and compared: canonical, signature included. */
export function manifestBytes(manifest: CheckpointManifest): Uint8Array {
  return canonicalBytes(CheckpointManifestSchema, manifest);
}

function checkFields(manifest: CheckpointManifest): void {
  const optionalRoot = (root: Uint8Array): boolean => root.length === 0 || root.length === 32;
  const figures = Object.entries(manifest.evaluation);
  const named = ([name, value]: [string, number]): boolean =>
    name.length >= 1 &&
    name.length <= MANIFEST_LIMITS.evaluationNameChars &&
    Number.isFinite(value);
  const checks: [string, boolean][] = [
    ["kind", manifest.kind === CheckpointKind.FULL],
    ["stage", manifest.stage > 0],
    ["run_id", manifest.runId.length <= MANIFEST_LIMITS.runIdChars && RUN_ID.test(manifest.runId)],
    ["root", manifest.root.length === 32],
    ["parent_root", optionalRoot(manifest.parentRoot)],
    ["training_state_root", optionalRoot(manifest.trainingStateRoot)],
    ["licence", manifest.licence.length <= MANIFEST_LIMITS.licenceChars],
    ["evaluation", figures.length <= MANIFEST_LIMITS.evaluations && figures.every(named)],
    ["created_at_ms", manifest.createdAtMs > 0n],
    ["signature", manifest.signature !== undefined],
  ];
  const failed = checks.find(([, good]) => !good);
  if (failed) throw invalid(`${failed[0]} is missing or out of bounds`);
}

function checkFiles(files: readonly CheckpointFile[]): void {
  if (files.length < 1 || files.length > MANIFEST_LIMITS.files) {
    throw invalid(`${files.length} files`);
  }
  const badPath = firstBadPath(files.map(({ path }) => path));
  if (badPath !== undefined) {
    throw invalid(`path ${JSON.stringify(badPath.slice(0, 80))} is not acceptable`);
  }
  let chunks = 0;
  for (const { path, sizeBytes, chunkSha256 } of files) {
    if (sizeBytes > BigInt(MANIFEST_LIMITS.chunks) * BigInt(CHUNK_BYTES)) {
      throw invalid(`${path} is too large`);
    }
    if (chunkSha256.length !== chunkCount(Number(sizeBytes))) {
      throw invalid(`${path} has ${chunkSha256.length} chunks for ${sizeBytes} bytes`);
    }
    if (chunkSha256.some((hash) => hash.length !== 32)) throw invalid(`${path} has a bad hash`);
    chunks += chunkSha256.length;
  }
  if (chunks > MANIFEST_LIMITS.chunks) throw invalid(`${chunks} chunks`);
  const sizes = new Map<string, number>();
  for (const { path, offset, sizeBytes, sha256 } of chunkPlaces({ files: [...files] })) {
    const hash = toHex(sha256);
    const known = sizes.get(hash) ?? sizeBytes;
    if (known !== sizeBytes) throw invalid(`the chunk of ${path} at ${offset} has two sizes`);
    sizes.set(hash, sizeBytes);
  }
}

function invalid(what: string): CheckpointError {
  return new CheckpointError("COV_CHECKPOINT_MANIFEST_INVALID", `Not a valid manifest: ${what}`);
}
