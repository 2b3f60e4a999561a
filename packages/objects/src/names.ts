// Names that every implementation takes: a subset of what S3 and POSIX file systems agree on.
import { CovenantError } from "@covenant/runtime";

/** Longest key, in bytes: the limit of S3. */
export const KEY_BYTES_MAX = 1024;

/** Longest part of a key between slashes, in bytes: file systems take 255, one is kept for the store's mark. */
export const KEY_SEGMENT_BYTES_MAX = 254;

const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const SEGMENT = /^[A-Za-z0-9._=+@-]+$/;

/** Throws `COV_OBJECT_BAD_NAME` unless the bucket is a portable name: 3 to 63 of a-z, 0-9, "." and "-". */
export function checkBucket(bucket: string): void {
  if (!BUCKET.test(bucket) || bucket.includes("..")) {
    throw badName("bucket", bucket, "Use 3 to 63 lower-case letters, digits, dots and hyphens.");
  }
}

/**
 * Throws `COV_OBJECT_BAD_NAME` unless the key is one to many segments joined by "/", each of letters, digits and
 * `._=+@-`, none of them "." or "..": it can name nothing outside its bucket.
 */
export function checkKey(key: string): void {
  const good =
    key.length <= KEY_BYTES_MAX &&
    key
      .split("/")
      .every(
        (part) =>
          part.length <= KEY_SEGMENT_BYTES_MAX &&
          SEGMENT.test(part) &&
          part !== "." &&
          part !== "..",
      );
  if (!good) throw badName("key", key, "Use letters, digits and ._=+@- in segments joined by '/'.");
}

function badName(what: "bucket" | "key", name: string, remedy: string): CovenantError {
  const shown = name.slice(0, 80);
  return new CovenantError(
    "COV_OBJECT_BAD_NAME",
    `Not a valid ${what} name: ${JSON.stringify(shown)}`,
    {
      remedy,
      metadata: { [what]: shown },
    },
  );
}
