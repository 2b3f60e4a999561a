/** Migrations in plain SQL, each applied once and never changed after. */
import { createHash } from "node:crypto";
import type { Database } from "better-sqlite3";
import { CovenantError } from "../errors/covenant-error.ts";

/** One step of a schema. */
export interface Migration {
  /** Unique and stable, for example "001-jobs". */
  name: string;
  /** One or more statements. */
  sql: string;
}

const TABLE = `CREATE TABLE IF NOT EXISTS migrations (
  position INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  sha256 TEXT NOT NULL
) STRICT`;

interface AppliedRow {
  position: number;
  name: string;
  sha256: string;
}

/** Applies what is new. Throws COV_DATABASE_MIGRATION_CHANGED when the past differs. */
export function applyMigrations(
  database: Database,
  path: string,
  migrations: readonly Migration[],
): void {
  const upgrade = database.transaction(() => {
    database.exec(TABLE);
    const query = database.prepare<[], AppliedRow>("SELECT * FROM migrations ORDER BY position");
    const applied = query.all();
    applied.forEach((row, position) => {
      assertSame(row, migrations[position], path);
    });
    const insert = database.prepare("INSERT INTO migrations VALUES (?, ?, ?)");
    for (let position = applied.length; position < migrations.length; position++) {
      const { name, sql } = migrations[position]!;
      database.exec(sql);
      insert.run(position, name, checksum(sql));
    }
  });
  upgrade.exclusive();
}

function assertSame(row: AppliedRow, migration: Migration | undefined, path: string): void {
  if (migration && row.name === migration.name && row.sha256 === checksum(migration.sql)) return;
  const text = migration
    ? `Migration ${row.name} of ${path} is not the one that was applied`
    : `${path} has migration ${row.name}, which this release does not know`;
  throw new CovenantError("COV_DATABASE_MIGRATION_CHANGED", text, {
    metadata: { path, migration: row.name },
  });
}

/** White space and line ends do not make another migration. */
function checksum(sql: string): string {
  return createHash("sha256").update(sql.replace(/\s+/g, " ").trim()).digest("hex");
}
