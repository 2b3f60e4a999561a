// ObjectStore on a file system. A key's last segment is a file, the ones before it are directories whose names end
// in "~", so that "a" and "a/b" can both be keys. Buckets are directories of the root; ".staging" holds files in writing.
import { createHash, randomUUID } from "node:crypto";
import { constants, mkdirSync, readdirSync, realpathSync, rmSync, statSync } from "node:fs";
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  realpath,
  rename,
  rm,
  unlink,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { CovenantError } from "@covenant/runtime";
import { hasCode, mapFileError } from "./file-errors.ts";
import { walkKeys } from "./file-walk.ts";
import { checkBucket, checkKey } from "./names.ts";
import type {
  GetOptions,
  ListOptions,
  ObjectHead,
  ObjectPage,
  ObjectStore,
  PutOptions,
} from "./object-store.ts";
import { LIST_LIMIT_MAX } from "./object-store.ts";

/** Options of {@link openFileObjectStore}. */
export interface FileObjectStoreOptions {
  /** Directory that holds the buckets; made when it does not exist. Several processes may share it. */
  root: string;
  /** Buckets this process may put to and remove from. */
  writableBuckets: readonly string[] | "all";
  /** Largest object, bytes. */
  objectBytesMax?: number;
}

const OBJECT_BYTES_MAX_DEFAULT = 1 << 30;
const STAGING = ".staging";
/** A staged file this old belongs to no living put. */
const STAGING_AGE_MAX_MS = 24 * 3600 * 1000;

/** Opens, or begins, an object store below `root`. Staged leftovers of crashed writers are removed. */
export function openFileObjectStore(options: FileObjectStoreOptions): ObjectStore {
  if (options.writableBuckets !== "all") options.writableBuckets.forEach(checkBucket);
  try {
    mkdirSync(join(options.root, STAGING), { recursive: true });
    const root = realpathSync(options.root);
    removeStaleStaging(join(root, STAGING));
    return new FileObjectStore({ ...options, root });
  } catch (error) {
    throw mapFileError(error, options.root);
  }
}

class FileObjectStore implements ObjectStore {
  readonly #root: string;
  readonly #writable: ReadonlySet<string> | "all";
  readonly #objectBytesMax: number;

  constructor(options: FileObjectStoreOptions) {
    this.#root = options.root;
    this.#writable = options.writableBuckets === "all" ? "all" : new Set(options.writableBuckets);
    this.#objectBytesMax = options.objectBytesMax ?? OBJECT_BYTES_MAX_DEFAULT;
  }

  async put(
    bucket: string,
    key: string,
    data: Uint8Array,
    options: PutOptions = {},
  ): Promise<{ sha256: Uint8Array }> {
    const path = this.#path(bucket, key);
    this.#checkWritable(bucket);
    if (data.byteLength > this.#objectBytesMax) {
      throw tooLarge(bucket, key, data.byteLength, this.#objectBytesMax);
    }
    const staged = join(this.#root, STAGING, randomUUID());
    try {
      const sha256 = new Uint8Array(createHash("sha256").update(data).digest());
      await writeDurably(staged, data);
      await makeDirectories(this.#root, dirname(path));
      await checkNoLinks(dirname(path));
      if (options.ifAbsent) await linkExclusively(staged, path, bucket, key);
      else await rename(staged, path);
      await syncDirectory(dirname(path));
      return { sha256 };
    } catch (error) {
      throw mapFileError(error, `${bucket}/${key}`);
    } finally {
      await rm(staged, { force: true });
    }
  }

  async get(bucket: string, key: string, options: GetOptions): Promise<Uint8Array> {
    const handle = await this.#open(bucket, key);
    if (!handle) {
      throw new CovenantError("COV_OBJECT_NOT_FOUND", `No object ${bucket}/${key}`, {
        metadata: { bucket, key },
      });
    }
    try {
      const { size } = await handle.stat();
      const { offset, length } = resolveRange(bucket, key, size, options);
      if (length > options.maxBytes) throw tooLarge(bucket, key, length, options.maxBytes);
      return await readExactly(handle, offset, length);
    } catch (error) {
      throw mapFileError(error, `${bucket}/${key}`);
    } finally {
      await handle.close();
    }
  }

  async head(bucket: string, key: string): Promise<ObjectHead | undefined> {
    const handle = await this.#open(bucket, key);
    if (!handle) return undefined;
    try {
      const status = await handle.stat();
      return { sizeBytes: status.size, modifiedAtMs: Math.floor(status.mtimeMs) };
    } finally {
      await handle.close();
    }
  }

  async list(bucket: string, options: ListOptions): Promise<ObjectPage> {
    checkBucket(bucket);
    const { limit } = options;
    if (!Number.isInteger(limit) || limit < 1 || limit > LIST_LIMIT_MAX) {
      throw new RangeError(`list limit must be 1 to ${LIST_LIMIT_MAX}, got ${limit}`);
    }
    const keys: string[] = [];
    try {
      for await (const key of walkKeys(join(this.#root, bucket), options)) {
        if (keys.length === limit) return { keys, more: true };
        keys.push(key);
      }
    } catch (error) {
      throw mapFileError(error, bucket);
    }
    return { keys, more: false };
  }

  async remove(bucket: string, key: string): Promise<void> {
    const path = this.#path(bucket, key);
    this.#checkWritable(bucket);
    try {
      await checkNoLinks(dirname(path));
      await unlink(path);
      await syncDirectory(dirname(path));
    } catch (error) {
      if (!hasCode(error, "ENOENT", "ENOTDIR")) throw mapFileError(error, `${bucket}/${key}`);
    }
  }

  #path(bucket: string, key: string): string {
    checkBucket(bucket);
    checkKey(key);
    const parts = key.split("/");
    const file = parts.pop()!;
    return join(this.#root, bucket, ...parts.map((part) => `${part}~`), file);
  }

  #checkWritable(bucket: string): void {
    if (this.#writable === "all" || this.#writable.has(bucket)) return;
    throw new CovenantError("COV_OBJECT_READ_ONLY", `Bucket ${bucket} is not writable here`, {
      metadata: { bucket },
    });
  }

  /** Opens for reading; undefined when no such object exists. Follows no symbolic link. */
  async #open(bucket: string, key: string): Promise<FileHandle | undefined> {
    const path = this.#path(bucket, key);
    try {
      await checkNoLinks(dirname(path));
      // Without O_NONBLOCK, opening a named pipe that someone left here would wait for ever.
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      const handle = await open(path, flags);
      if ((await handle.stat()).isFile()) return handle;
      await handle.close();
      return undefined;
    } catch (error) {
      if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
      throw mapFileError(error, `${bucket}/${key}`);
    }
  }
}

function resolveRange(
  bucket: string,
  key: string,
  size: number,
  options: GetOptions,
): { offset: number; length: number } {
  const offset = options.offset ?? 0;
  const good = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
  if (!good(offset) || !good(options.length ?? 0) || offset > size) {
    const metadata = { bucket, key, offset: String(offset), sizeBytes: String(size) };
    throw new CovenantError("COV_OBJECT_RANGE", `Range outside of ${bucket}/${key}`, { metadata });
  }
  return { offset, length: Math.min(options.length ?? size - offset, size - offset) };
}

function tooLarge(bucket: string, key: string, bytes: number, maxBytes: number): CovenantError {
  const message = `Object ${bucket}/${key} has ${bytes} bytes, at most ${maxBytes} are taken`;
  const metadata = { bucket, key, bytes: String(bytes), maxBytes: String(maxBytes) };
  return new CovenantError("COV_OBJECT_TOO_LARGE", message, { metadata });
}

async function readExactly(
  handle: FileHandle,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const data = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(data, done, length - done, offset + done);
    if (bytesRead === 0) throw new Error("object shrank while it was read");
    done += bytesRead;
  }
  return data;
}

async function writeDurably(path: string, data: Uint8Array): Promise<void> {
  const handle = await open(path, "wx", 0o644);
  try {
    await handle.writeFile(data);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** link(2) fails when the name is taken: the only atomic "create unless it exists" with complete content. */
async function linkExclusively(staged: string, path: string, bucket: string, key: string) {
  try {
    await link(staged, path);
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
    throw new CovenantError("COV_OBJECT_EXISTS", `Object ${bucket}/${key} exists already`, {
      metadata: { bucket, key },
      cause: error,
    });
  }
}

/** Makes the directories between root and directory, each durable in its parent before the next. */
async function makeDirectories(root: string, directory: string): Promise<void> {
  if (directory === root || (await exists(directory))) return;
  await makeDirectories(root, dirname(directory));
  try {
    await mkdir(directory);
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
  }
  await syncDirectory(dirname(directory));
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
}

/** A directory that resolves to another path has a symbolic link in it: it may lead out of the bucket. */
async function checkNoLinks(directory: string): Promise<void> {
  if ((await realpath(directory)) === directory) return;
  throw new CovenantError("COV_OBJECT_BAD_NAME", `Symbolic link on the way to ${directory}`, {
    remedy: "Remove the link; the store follows none.",
  });
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function removeStaleStaging(directory: string): void {
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    const modifiedAtMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
    const stale = modifiedAtMs !== undefined && Date.now() - modifiedAtMs > STAGING_AGE_MAX_MS;
    if (stale) rmSync(path, { force: true });
  }
}
