// The bytes of chunks, in an object store under content addresses. Row and object change together under a lock by
// hash: the row says "stored" only while the object is durable.
import { bytesEqual, fromHex, sha256 } from "@covenant/contracts";
import { LIST_LIMIT_MAX, type ObjectStore } from "@covenant/objects";
import { CovenantError, hasCode } from "@covenant/runtime";
import type { Kysely } from "kysely";
import { KeyedLock } from "../keyed-lock.ts";
import { addChunk, forgetChunk, forgetGarbage, garbage, hasChunk } from "./chunk-index.ts";
import type { RegistryTables } from "./schema.ts";

const PREFIX = "chunks/";
const GARBAGE_PER_LOOK = 256;

/** Collaborators of {@link ChunkVault}. */
export interface ChunkVaultModules {
  objects: ObjectStore;
  database: Kysely<RegistryTables>;
}

/** Stores, reads, checks and collects chunks. */
export class ChunkVault {
  readonly #bucket: string;
  readonly #objects: ObjectStore;
  readonly #database: Kysely<RegistryTables>;
  readonly #lock = new KeyedLock();

  constructor(options: { bucket: string }, modules: ChunkVaultModules) {
    this.#bucket = options.bucket;
    this.#objects = modules.objects;
    this.#database = modules.database;
  }

  /** Makes a chunk durable; the caller has checked the hash. False when it was stored already. */
  async put(hash: string, data: Uint8Array): Promise<boolean> {
    return this.#lock.run(hash, async () => {
      if (await hasChunk(this.#database, hash)) return false;
      const stored = await this.#objects.put(this.#bucket, keyOf(hash), data);
      if (!bytesEqual(stored.sha256, fromHex(hash)))
        throw new Error(`chunk ${hash} changed in memory`);
      await addChunk(this.#database, hash, data.byteLength);
      return true;
    });
  }

  /** The bytes of a chunk, checked. `COV_DATA_LOSS` when they are gone or differ. */
  async get(hash: string, sizeBytes: number): Promise<Uint8Array> {
    const data = await this.#read(hash, sizeBytes);
    if (data) return data;
    throw new CovenantError("COV_DATA_LOSS", `Chunk ${hash} is missing or damaged`, {
      remedy: "Upload the checkpoint again: Verify marks damaged chunks, and uploads replace them.",
      metadata: { chunk: hash },
    });
  }

  /** Reads a chunk back; one that is gone or differs is forgotten, so that an upload can bring it again. */
  async verify(hash: string, sizeBytes: number): Promise<boolean> {
    return this.#lock.run(hash, async () => {
      if (await this.#read(hash, sizeBytes)) return true;
      await forgetChunk(this.#database, hash);
      return false;
    });
  }

  /** Deletes stored chunks that nobody needs; returns the bytes freed. */
  async collect(): Promise<number> {
    let freedBytes = 0;
    for (;;) {
      const found = await garbage(this.#database, GARBAGE_PER_LOOK);
      for (const { sha256: hash, size_bytes } of found) {
        await this.#lock.run(hash, async () => {
          // The row goes first: a crash in between leaves an object without a row, which sweep() finds.
          if (!(await forgetGarbage(this.#database, hash))) return;
          await this.#objects.remove(this.#bucket, keyOf(hash));
          freedBytes += size_bytes;
        });
      }
      if (found.length < GARBAGE_PER_LOOK) return freedBytes;
    }
  }

  /** Removes objects that no row knows: what a crash between object and row left. For the start of the process. */
  async sweep(): Promise<number> {
    let removed = 0;
    let after: string | undefined;
    for (;;) {
      const position = after === undefined ? {} : { after };
      const page = await this.#objects.list(this.#bucket, {
        prefix: PREFIX,
        limit: LIST_LIMIT_MAX,
        ...position,
      });
      for (const key of page.keys) {
        if (await hasChunk(this.#database, key.slice(key.lastIndexOf("/") + 1))) continue;
        await this.#objects.remove(this.#bucket, key);
        removed += 1;
      }
      after = page.keys.at(-1);
      if (!page.more) return removed;
    }
  }

  async #read(hash: string, sizeBytes: number): Promise<Uint8Array | undefined> {
    try {
      const data = await this.#objects.get(this.#bucket, keyOf(hash), { maxBytes: sizeBytes });
      return bytesEqual(sha256(data), fromHex(hash)) ? data : undefined;
    } catch (error) {
      if (hasCode(error, "COV_OBJECT_NOT_FOUND") || hasCode(error, "COV_OBJECT_TOO_LARGE")) {
        return undefined;
      }
      throw error;
    }
  }
}

/** Two digits of the hash spread chunks over 256 directories. */
function keyOf(hash: string): string {
  return `${PREFIX}${hash.slice(0, 2)}/${hash}`;
}
