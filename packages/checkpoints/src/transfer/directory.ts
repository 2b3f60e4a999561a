// Checkpoint files on disk: reading a model directory into memory, within bounds.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readFileLimited } from "@covenant/runtime";
import { CheckpointError } from "../format/errors.ts";
import { MANIFEST_LIMITS } from "../format/manifest.ts";
import type { CheckpointFileData } from "../format/model-directory.ts";
import { isSafePath } from "../format/paths.ts";

/** Options of {@link readCheckpointDirectory}. */
export interface ReadDirectoryOptions {
  /** All files together; more is `COV_CHECKPOINT_TOO_LARGE`. */
  maxBytes: number;
  /** Only these paths; all when absent. */
  paths?: readonly string[];
}

/** The regular, visible files of a directory and below, sorted by path. Links and hidden files are passed over. */
export async function readCheckpointDirectory(
  directory: string,
  options: ReadDirectoryOptions,
): Promise<CheckpointFileData[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(join(directory, "/").length))
    .filter((path) => isSafePath(path) && (options.paths?.includes(path) ?? true))
    .sort();
  if (paths.length > MANIFEST_LIMITS.files) {
    throw new CheckpointError("COV_CHECKPOINT_TOO_LARGE", `${directory} has ${paths.length} files`);
  }
  const files: CheckpointFileData[] = [];
  let left = options.maxBytes;
  for (const path of paths) {
    const data = await readFileLimited(join(directory, path), left);
    left -= data.byteLength;
    files.push({ path, data });
  }
  return files;
}
