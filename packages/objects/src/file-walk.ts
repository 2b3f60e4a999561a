// Walks a bucket's directory in key order, entering only what the page can need.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "./file-errors.ts";

interface WalkOptions {
  prefix?: string;
  after?: string;
}

/** Yields the keys below `directory` that match, ascending by byte value (keys are ASCII, so code units agree). */
export async function* walkKeys(
  directory: string,
  options: WalkOptions,
  base = "",
): AsyncGenerator<string> {
  const { prefix = "", after } = options;
  for (const { key, path, isDirectory } of await entries(directory, base)) {
    if (isDirectory) {
      if (!key.startsWith(prefix) && !prefix.startsWith(key)) continue;
      if (after !== undefined && after > key && !after.startsWith(key)) continue;
      yield* walkKeys(path, options, key);
    } else if (key.startsWith(prefix) && (after === undefined || key > after)) {
      yield key;
    }
  }
}

/** Sorted by key; a directory's key ends in "/", which is where its content sorts. */
async function entries(directory: string, base: string) {
  try {
    const found = await readdir(directory, { withFileTypes: true });
    return found
      .filter((entry) => (entry.isDirectory() ? entry.name.endsWith("~") : entry.isFile()))
      .map((entry) => ({
        key: base + (entry.isDirectory() ? `${entry.name.slice(0, -1)}/` : entry.name),
        path: join(directory, entry.name),
        isDirectory: entry.isDirectory(),
      }))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  } catch (error) {
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}
