/** Relational state of one service: SQLite in its data directory. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import SqliteDatabase from "better-sqlite3";
import { Kysely, SqliteDialect } from "kysely";
import { CovenantError } from "../errors/covenant-error.ts";
import { fromFileError } from "../files/files.ts";
import type { Migration } from "./migrate.ts";
import { applyMigrations } from "./migrate.ts";

const BUSY_TIMEOUT_MS = 5000;

/** Which file, and how its tables come to be. */
export interface DatabaseOptions {
  /** File path, or ":memory:". */
  path: string;
  /** In order; applied once each. */
  migrations: readonly Migration[];
}

/**
 * Opens the database, checks the whole file, and applies new migrations, each in one transaction.
 * Commits are durable when they return (write-ahead log, synchronous FULL). Throws
 * COV_DATABASE_CORRUPT, COV_DATABASE_MIGRATION_CHANGED, COV_DISK_FULL.
 */
export function openDatabase<Tables>(options: DatabaseOptions): Kysely<Tables> {
  const { path, migrations } = options;
  let database: SqliteDatabase.Database | undefined;
  try {
    if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true });
    database = new SqliteDatabase(path, { timeout: BUSY_TIMEOUT_MS });
    database.pragma("journal_mode = WAL");
    database.pragma("synchronous = FULL");
    database.pragma("foreign_keys = ON");
    const problem = database.pragma("quick_check(1)", { simple: true });
    if (problem !== "ok") throw corrupt(path, String(problem));
    applyMigrations(database, path, migrations);
    return new Kysely<Tables>({ dialect: new SqliteDialect({ database }) });
  } catch (error) {
    database?.close();
    throw fromDatabaseError(error, path);
  }
}

/** The catalogue's error for what SQLite reports; anything else comes back as it is. */
export function fromDatabaseError(error: unknown, path: string): unknown {
  const { code = "", message } = error as { code?: string; message?: string };
  if (code.startsWith("SQLITE_CORRUPT") || code === "SQLITE_NOTADB") {
    return corrupt(path, message ?? code, error);
  }
  // The second: the shared-memory index beside the file could not be given its 32 KiB.
  if (code === "SQLITE_FULL" || code === "SQLITE_IOERR_SHMSIZE") {
    return new CovenantError("COV_DISK_FULL", `No space left to write ${path}`, {
      remedy: `Free space on the file system of ${dirname(path)}, then try again.`,
      metadata: { path },
      cause: error,
    });
  }
  if (code.startsWith("SQLITE_CANTOPEN") || code.startsWith("SQLITE_READONLY")) {
    const text = `Cannot use ${path}: ${message}`;
    return new CovenantError("COV_FILE_UNREADABLE", text, { metadata: { path }, cause: error });
  }
  return fromFileError(error, path);
}

function corrupt(path: string, problem: string, cause?: unknown): CovenantError {
  return new CovenantError("COV_DATABASE_CORRUPT", `${path} is damaged: ${problem}`, {
    remedy: `Stop the service, keep a copy of ${path}, restore a backup or delete it to start empty.`,
    metadata: { path },
    ...(cause !== undefined && { cause }),
  });
}
