// Cutting files into chunks, naming them by hash, and saying which of them one holds.
import { merkleRoot, sha256 } from "@covenant/contracts";
import type { CheckpointFile, CheckpointManifest } from "@covenant/contracts/registry";

/** Size of every chunk but a file's last: 4 MiB. */
export const CHUNK_BYTES = 4 << 20;

/** One chunk of a checkpoint. */
export interface ChunkPlace {
  /** Position among all chunks, files in order. */
  index: number;
  fileIndex: number;
  path: string;
  /** First byte within the file. */
  offset: number;
  sizeBytes: number;
  sha256: Uint8Array;
}

/** SHA-256 of each chunk of a file; none for an empty file. */
export function hashChunks(data: Uint8Array): Uint8Array[] {
  const hashes: Uint8Array[] = [];
  for (let at = 0; at < data.byteLength; at += CHUNK_BYTES) {
    hashes.push(sha256(data.subarray(at, at + CHUNK_BYTES)));
  }
  return hashes;
}

/** Number of chunks of a file of this size. */
export function chunkCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / CHUNK_BYTES);
}

/** The chunks of a verified manifest, in order. */
export function chunkPlaces(manifest: Pick<CheckpointManifest, "files">): ChunkPlace[] {
  const places: ChunkPlace[] = [];
  manifest.files.forEach((file, fileIndex) => {
    const fileBytes = Number(file.sizeBytes);
    file.chunkSha256.forEach((hash, i) => {
      const offset = i * CHUNK_BYTES;
      const sizeBytes = Math.min(CHUNK_BYTES, fileBytes - offset);
      const index = places.length;
      places.push({ index, fileIndex, path: file.path, offset, sizeBytes, sha256: hash });
    });
  });
  return places;
}

/** The root that names a checkpoint: Merkle root over all chunk hashes, files in order. */
export function checkpointRoot(files: readonly Pick<CheckpointFile, "chunkSha256">[]): Uint8Array {
  return merkleRoot(files.flatMap((file) => file.chunkSha256));
}

/** Total size of a manifest's files, bytes. */
export function checkpointBytes(manifest: Pick<CheckpointManifest, "files">): number {
  return manifest.files.reduce((sum, file) => sum + Number(file.sizeBytes), 0);
}

/** A bitmap of `count` bits with these set; bit i is bit i mod 8, least significant first, of byte i div 8. */
export function makeBitmap(indices: Iterable<number>, count: number): Uint8Array {
  const bitmap = new Uint8Array(Math.ceil(count / 8));
  for (const index of indices) {
    if (index < 0 || index >= count) throw new RangeError(`Bit ${index} of ${count}`);
    bitmap[index >> 3]! |= 1 << (index & 7);
  }
  return bitmap;
}

/** Whether a bit is set; bits beyond the bitmap are not. */
export function hasBit(bitmap: Uint8Array, index: number): boolean {
  return ((bitmap[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
}
