/** Files that are whole or absent, and reads that have a limit. */
import { constants } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CovenantError } from "../errors/covenant-error.ts";

let temporaryCount = 0;

/**
 * Replaces the file at `path` with `data`: after a crash at any instant the old or the new content is
 * there, never a mixture. Durable when the promise resolves (file and directory are fsynced). Creates
 * the directory. Throws COV_DISK_FULL or COV_FILE_UNREADABLE and leaves the old content.
 */
export async function writeFileAtomic(
  path: string,
  data: Uint8Array | string,
  options: { mode?: number } = {},
): Promise<void> {
  const directory = dirname(path);
  const temporary = join(directory, `.${process.pid}-${temporaryCount++}.tmp`);
  try {
    await mkdir(directory, { recursive: true });
    const file = await open(temporary, "wx", options.mode ?? 0o644);
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(directory);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw fromFileError(error, path);
  }
}

/** Makes names created, renamed or removed in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * The whole file. Throws COV_FILE_TOO_LARGE when it holds more than `maxBytes` (it never reads more),
 * COV_FILE_NOT_FOUND and COV_FILE_UNREADABLE.
 */
export async function readFileLimited(path: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const file = await open(path, constants.O_RDONLY);
    try {
      const { size } = await file.stat();
      if (size > maxBytes) throw tooLarge(path, size, maxBytes);
      // One byte more than allowed, so that a file growing under us is noticed.
      const buffer = Buffer.alloc(Math.min(Math.max(size, 4096), maxBytes) + 1);
      let length = 0;
      while (length < buffer.length) {
        const { bytesRead } = await file.read(buffer, length, buffer.length - length);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
      if (length > maxBytes) throw tooLarge(path, length, maxBytes);
      return new Uint8Array(buffer.buffer, buffer.byteOffset, length);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw fromFileError(error, path);
  }
}

/** The catalogue's error for a file system error; anything else comes back as it is. */
export function fromFileError(error: unknown, path: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  const metadata = { path };
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return new CovenantError("COV_DISK_FULL", `No space left to write ${path}`, {
        remedy: `Free space on the file system of ${dirname(path)}, then try again.`,
        metadata,
        cause: error,
      });
    case "ENOENT":
      return new CovenantError("COV_FILE_NOT_FOUND", `${path} does not exist`, {
        metadata,
        cause: error,
      });
    case "EACCES":
    case "EPERM":
    case "EROFS":
    case "EISDIR":
    case "ENOTDIR":
      return new CovenantError("COV_FILE_UNREADABLE", `Cannot use ${path}: ${code}`, {
        metadata,
        cause: error,
      });
    default:
      return error;
  }
}

function tooLarge(path: string, sizeBytes: number, maxBytes: number): CovenantError {
  return new CovenantError("COV_FILE_TOO_LARGE", `${path} holds more than ${maxBytes} bytes`, {
    metadata: { path, sizeBytes, maxBytes },
  });
}
