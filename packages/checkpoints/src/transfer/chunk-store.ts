// A checkpoint in the making, on disk. Chunks are written into their files in place; what is held is found out by
// hashing, so there is no journal that could say more than the disk.
import { constants } from "node:fs";
import { access, type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { bytesEqual, sha256 } from "@covenant/contracts";
import { type CheckpointManifest, CheckpointManifestSchema } from "@covenant/contracts/registry";
import { CovenantError, readFileLimited, writeFileAtomic } from "@covenant/runtime";
import { type ChunkPlace, chunkPlaces, makeBitmap } from "../format/chunks.ts";
import { CheckpointError } from "../format/errors.ts";
import { manifestBytes, verifyManifest } from "../format/manifest.ts";

/** The manifest in a received directory. Hidden, so that no file of a checkpoint can have its name. */
export const MANIFEST_FILE = ".covenant-manifest.pb";

const MANIFEST_BYTES_MAX = 16 << 20;

/** Chunks of one checkpoint in a directory of their own, until all are there. */
export class ChunkStore {
  readonly manifest: CheckpointManifest;
  readonly places: readonly ChunkPlace[];
  readonly #directory: string;
  readonly #held = new Set<number>();

  private constructor(directory: string, manifest: CheckpointManifest) {
    this.#directory = directory;
    this.manifest = manifest;
    this.places = chunkPlaces(manifest);
  }

  /** Begins an empty store: files at full size but without content, the manifest durable. */
  static async create(directory: string, manifest: CheckpointManifest): Promise<ChunkStore> {
    return mapDiskErrors(directory, async () => {
      await rm(directory, { recursive: true, force: true });
      for (const { path, sizeBytes } of manifest.files) {
        const target = join(directory, path);
        await mkdir(dirname(target), { recursive: true });
        const handle = await open(target, "wx");
        await handle.truncate(Number(sizeBytes)).finally(() => handle.close());
      }
      await writeFileAtomic(join(directory, MANIFEST_FILE), manifestBytes(manifest));
      return new ChunkStore(directory, manifest);
    });
  }

  /** Opens what an earlier attempt left for this root, reading every chunk back; undefined when there is nothing. */
  static async resume(directory: string, root: Uint8Array): Promise<ChunkStore | undefined> {
    const manifest = await readStoredManifest(directory);
    if (!manifest || !bytesEqual(manifest.root, root)) return undefined;
    const store = new ChunkStore(directory, manifest);
    await mapDiskErrors(directory, () => store.#findHeld());
    return store;
  }

  /** Chunks that are held. */
  get heldCount(): number {
    return this.#held.size;
  }

  get isComplete(): boolean {
    return this.#held.size === this.places.length;
  }

  /** Bit per chunk, set for those held. */
  bitmap(): Uint8Array {
    return makeBitmap(this.#held, this.places.length);
  }

  /** Verifies a chunk and makes it durable. Throws `COV_CHECKPOINT_CHUNK_MISMATCH`, `COV_DISK_FULL`. */
  async write(index: number, data: Uint8Array): Promise<void> {
    const place = this.places[index];
    if (!place || this.#held.has(index)) throw mismatch(`chunk ${index} was not asked for`);
    if (data.byteLength !== place.sizeBytes || !bytesEqual(sha256(data), place.sha256)) {
      throw mismatch(`chunk ${index} (${place.path} at ${place.offset}) differs from the manifest`);
    }
    await mapDiskErrors(this.#directory, async () => {
      const handle = await this.#open(place.path, constants.O_WRONLY);
      try {
        let done = 0;
        while (done < data.byteLength) {
          const left = data.byteLength - done;
          done += (await handle.write(data, done, left, place.offset + done)).bytesWritten;
        }
        await handle.datasync();
      } finally {
        await handle.close();
      }
    });
    this.#held.add(index);
  }

  /** Gives the complete directory its final name, in one step. The store is gone then. */
  async assemble(directory: string): Promise<void> {
    if (!this.isComplete) throw new Error("assemble needs every chunk");
    await mapDiskErrors(directory, async () => {
      // Names of empty files were never synced; their directories are.
      const paths = this.manifest.files.map(({ path }) => dirname(join(this.#directory, path)));
      for (const path of new Set([...paths, this.#directory])) await syncDirectory(path);
      await rename(this.#directory, directory);
      await syncDirectory(dirname(directory));
    });
  }

  async #findHeld(): Promise<void> {
    const buffer = new Uint8Array(Math.max(0, ...this.places.map(({ sizeBytes }) => sizeBytes)));
    for (const place of this.places) {
      const handle = await this.#open(place.path, constants.O_RDONLY);
      try {
        const part = buffer.subarray(0, place.sizeBytes);
        const { bytesRead } = await handle.read(part, 0, place.sizeBytes, place.offset);
        const whole = bytesRead === place.sizeBytes;
        if (whole && bytesEqual(sha256(part), place.sha256)) this.#held.add(place.index);
      } finally {
        await handle.close();
      }
    }
  }

  #open(path: string, flags: number): Promise<FileHandle> {
    return open(join(this.#directory, path), flags | constants.O_NOFOLLOW);
  }
}

/** The verified manifest inside a directory that was received; undefined when there is none to trust. */
export async function readStoredManifest(
  directory: string,
): Promise<CheckpointManifest | undefined> {
  const path = join(directory, MANIFEST_FILE);
  try {
    await access(path);
  } catch {
    return undefined;
  }
  try {
    const bytes = await readFileLimited(path, MANIFEST_BYTES_MAX);
    const manifest = fromBinary(CheckpointManifestSchema, bytes);
    verifyManifest(manifest);
    return manifest;
  } catch {
    // Torn or foreign: as good as none, the transfer begins anew.
    return undefined;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  await handle.sync().finally(() => handle.close());
}

async function mapDiskErrors<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
    throw new CovenantError("COV_DISK_FULL", `No space left in ${directory}`, {
      remedy: "Free space and receive again: chunks that arrived are kept.",
      cause: error,
    });
  }
}

function mismatch(what: string): CheckpointError {
  return new CheckpointError("COV_CHECKPOINT_CHUNK_MISMATCH", `Received ${what}`);
}
