// Visible checkpoints in the index.
import type { Kysely, Selectable } from "kysely";
import type { CheckpointTable, RegistryTables } from "./schema.ts";

/** A row of the checkpoints table. */
export type CheckpointRow = Selectable<CheckpointTable>;

/** What {@link listCheckpoints} filters by; absent parts do not filter. */
export interface CheckpointFilter {
  runId?: string;
  stage?: number;
  beforeSequence?: number;
  limit: number;
}

/** The checkpoint of a root (hexadecimal), or undefined. */
export async function findCheckpoint(
  database: Kysely<RegistryTables>,
  root: string,
): Promise<CheckpointRow | undefined> {
  return database.selectFrom("checkpoints").selectAll().where("root", "=", root).executeTakeFirst();
}

/** Checkpoints newest first. */
export async function listCheckpoints(
  database: Kysely<RegistryTables>,
  filter: CheckpointFilter,
): Promise<CheckpointRow[]> {
  let query = database
    .selectFrom("checkpoints")
    .selectAll()
    .orderBy("sequence", "desc")
    .limit(filter.limit);
  if (filter.runId !== undefined) query = query.where("run_id", "=", filter.runId);
  if (filter.stage !== undefined) query = query.where("stage", "=", filter.stage);
  if (filter.beforeSequence !== undefined) {
    query = query.where("sequence", "<", filter.beforeSequence);
  }
  return query.execute();
}

/** The oldest checkpoint after a sequence, of a run or of all. */
export async function nextCheckpoint(
  database: Kysely<RegistryTables>,
  runId: string | undefined,
  afterSequence: number,
): Promise<CheckpointRow | undefined> {
  let query = database
    .selectFrom("checkpoints")
    .selectAll()
    .where("sequence", ">", afterSequence)
    .orderBy("sequence", "asc")
    .limit(1);
  if (runId !== undefined) query = query.where("run_id", "=", runId);
  return query.executeTakeFirst();
}

/** Sets the pin; false when no such checkpoint exists. */
export async function setPinned(
  database: Kysely<RegistryTables>,
  root: string,
  pinned: boolean,
): Promise<boolean> {
  const result = await database
    .updateTable("checkpoints")
    .set({ pinned: pinned ? 1 : 0 })
    .where("root", "=", root)
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

class DryRun extends Error {}

/**
 * Removes checkpoints (those that were pinned meanwhile stay) and returns what went and the bytes that became
 * garbage. A dry run does the same and takes it back.
 */
export async function removeCheckpoints(
  database: Kysely<RegistryTables>,
  roots: readonly string[],
  options: { dryRun: boolean },
): Promise<{ removed: string[]; freedBytes: number }> {
  const removed: string[] = [];
  let freedBytes = 0;
  try {
    await database.transaction().execute(async (transaction) => {
      for (const root of roots) {
        const { numDeletedRows } = await transaction
          .deleteFrom("checkpoints")
          .where("root", "=", root)
          .where("pinned", "=", 0)
          .executeTakeFirstOrThrow();
        if (numDeletedRows === 0n) continue;
        await transaction.deleteFrom("chunk_holders").where("holder", "=", `c:${root}`).execute();
        removed.push(root);
      }
      freedBytes = await garbageBytes(transaction);
      if (options.dryRun) throw new DryRun();
    });
  } catch (error) {
    if (!(error instanceof DryRun)) throw error;
  }
  return { removed, freedBytes };
}

async function garbageBytes(database: Kysely<RegistryTables>): Promise<number> {
  const row = await database
    .selectFrom("chunks")
    .select(({ fn }) => fn.sum<number | null>("size_bytes").as("bytes"))
    .where(({ not, exists, selectFrom }) =>
      not(
        exists(
          selectFrom("chunk_holders")
            .select("holder")
            .whereRef("chunk_holders.sha256", "=", "chunks.sha256"),
        ),
      ),
    )
    .executeTakeFirst();
  return Number(row?.bytes ?? 0);
}
