// Chunks in the index: which are stored, who needs them, which are garbage.
import type { Kysely, Transaction } from "kysely";
import type { RegistryTables } from "./schema.ts";

/** Rows per statement: below the parameter limits of SQLite and PostgreSQL. */
const ROWS_PER_STATEMENT = 400;

type Database = Kysely<RegistryTables> | Transaction<RegistryTables>;

/** Notes that a holder needs these chunks; repeating is harmless. */
export async function holdChunks(
  database: Database,
  holder: string,
  hashes: readonly string[],
): Promise<void> {
  for (let first = 0; first < hashes.length; first += ROWS_PER_STATEMENT) {
    const rows = hashes
      .slice(first, first + ROWS_PER_STATEMENT)
      .map((sha256) => ({ holder, sha256 }));
    await database
      .insertInto("chunk_holders")
      .values(rows)
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
}

/** Chunks a holder needs that are not stored. */
export async function missingChunks(database: Database, holder: string): Promise<string[]> {
  const rows = await database
    .selectFrom("chunk_holders")
    .leftJoin("chunks", "chunks.sha256", "chunk_holders.sha256")
    .select("chunk_holders.sha256 as sha256")
    .where("chunk_holders.holder", "=", holder)
    .where("chunks.sha256", "is", null)
    .execute();
  return rows.map(({ sha256 }) => sha256);
}

/** Size by hash of the stored chunks a holder needs. */
export async function heldChunkSizes(
  database: Database,
  holder: string,
): Promise<Map<string, number>> {
  const rows = await database
    .selectFrom("chunk_holders")
    .innerJoin("chunks", "chunks.sha256", "chunk_holders.sha256")
    .select(["chunks.sha256 as sha256", "chunks.size_bytes as bytes"])
    .where("chunk_holders.holder", "=", holder)
    .execute();
  return new Map(rows.map(({ sha256, bytes }) => [sha256, bytes]));
}

/** Bytes of all stored chunks. */
export async function storedBytes(database: Database): Promise<number> {
  const row = await database
    .selectFrom("chunks")
    .select(({ fn }) => fn.sum<number | null>("size_bytes").as("bytes"))
    .executeTakeFirst();
  return Number(row?.bytes ?? 0);
}

/** Whether a chunk is stored. */
export async function hasChunk(database: Database, sha256: string): Promise<boolean> {
  const row = await database
    .selectFrom("chunks")
    .select("sha256")
    .where("sha256", "=", sha256)
    .executeTakeFirst();
  return row !== undefined;
}

/** Notes that a chunk is durable. */
export async function addChunk(
  database: Database,
  sha256: string,
  sizeBytes: number,
): Promise<void> {
  await database
    .insertInto("chunks")
    .values({ sha256, size_bytes: sizeBytes })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

/** Notes that a chunk is not stored after all: an upload of it will be taken again. */
export async function forgetChunk(database: Database, sha256: string): Promise<void> {
  await database.deleteFrom("chunks").where("sha256", "=", sha256).execute();
}

/** Stored chunks that nobody needs, and their bytes. */
export async function garbage(
  database: Database,
  limit: number,
): Promise<{ sha256: string; size_bytes: number }[]> {
  return database
    .selectFrom("chunks")
    .select(["sha256", "size_bytes"])
    .where(({ not, exists, selectFrom }) =>
      not(
        exists(
          selectFrom("chunk_holders")
            .select("holder")
            .whereRef("chunk_holders.sha256", "=", "chunks.sha256"),
        ),
      ),
    )
    .limit(limit)
    .execute();
}

/** Forgets a chunk unless somebody needs it by now; true when it was forgotten. One statement, so nothing comes between. */
export async function forgetGarbage(database: Database, sha256: string): Promise<boolean> {
  const result = await database
    .deleteFrom("chunks")
    .where("sha256", "=", sha256)
    .where(({ not, exists, selectFrom }) =>
      not(exists(selectFrom("chunk_holders").select("holder").where("sha256", "=", sha256))),
    )
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}
