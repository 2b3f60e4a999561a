// The one interface that services use for bulk bytes: buckets of named, immutable-in-one-piece objects.

/** Options of {@link ObjectStore.put}. */
export interface PutOptions {
  /** Refuse with `COV_OBJECT_EXISTS` when the key is taken; decided atomically, also between processes. */
  ifAbsent?: boolean;
}

/** Options of {@link ObjectStore.get}. */
export interface GetOptions {
  /** First byte to read; 0 when absent. Past the end: `COV_OBJECT_RANGE`. */
  offset?: number;
  /** Bytes to read; cut at the end of the object. To the end when absent. */
  length?: number;
  /** Refuse with `COV_OBJECT_TOO_LARGE`, before memory is taken, to return more bytes than this. */
  maxBytes: number;
}

/** Options of {@link ObjectStore.list}. */
export interface ListOptions {
  /** Only keys that begin with this text; it need not end at a "/". */
  prefix?: string;
  /** Keys to return at most, 1 to {@link LIST_LIMIT_MAX}. */
  limit: number;
  /** Only keys after this one: the last key of the page before. */
  after?: string;
}

/** What {@link ObjectStore.head} knows. */
export interface ObjectHead {
  sizeBytes: number;
  /** Unix milliseconds of the last put. */
  modifiedAtMs: number;
}

/** A page of keys, ascending by byte value. */
export interface ObjectPage {
  keys: string[];
  /** True when keys after the last one exist. */
  more: boolean;
}

/**
 * Stores objects by bucket and key. A reader sees an object whole or not at all, whatever happens to the writer.
 * Errors are `CovenantError`s: `COV_OBJECT_BAD_NAME`, `COV_OBJECT_READ_ONLY`, `COV_OBJECT_NOT_FOUND`,
 * `COV_OBJECT_EXISTS`, `COV_OBJECT_TOO_LARGE`, `COV_OBJECT_RANGE`, `COV_DISK_FULL`.
 */
export interface ObjectStore {
  /** Stores the object durably, replacing an earlier one in one step; resolves with the SHA-256 of `data`. */
  put(
    bucket: string,
    key: string,
    data: Uint8Array,
    options?: PutOptions,
  ): Promise<{ sha256: Uint8Array }>;
  /** Reads an object, or a part of it. */
  get(bucket: string, key: string, options: GetOptions): Promise<Uint8Array>;
  /** Size and age of an object, or undefined when there is none. */
  head(bucket: string, key: string): Promise<ObjectHead | undefined>;
  /** Keys in ascending byte order. A bucket that does not exist is empty. */
  list(bucket: string, options: ListOptions): Promise<ObjectPage>;
  /** Removes an object; one that does not exist is no error. */
  remove(bucket: string, key: string): Promise<void>;
}

/** Most keys that one list call returns. */
export const LIST_LIMIT_MAX = 1000;
