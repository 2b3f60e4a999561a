import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { sql } from "kysely";
import { hasCode } from "../errors/covenant-error.ts";
import { temporaryDirectory } from "../testing.ts";
import { fromDatabaseError, openDatabase } from "./open.ts";

interface Tables {
  jobs: { id: string; body: string };
}

const create = {
  name: "001-jobs",
  sql: "CREATE TABLE jobs (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
};
const index = { name: "002-index", sql: "CREATE INDEX jobs_body ON jobs (body)" };

test("what was committed is there after opening again, and new migrations are added", async (t) => {
  const path = join(await temporaryDirectory(t), "state", "jobs.db");
  const first = openDatabase<Tables>({ path, migrations: [create] });
  await first.insertInto("jobs").values({ id: "a", body: "x" }).execute();
  await first.destroy();
  const respaced = { ...create, sql: create.sql.replace(" (", "\n  (") };
  const second = openDatabase<Tables>({ path, migrations: [respaced, index] });
  assert.deepEqual(await second.selectFrom("jobs").selectAll().execute(), [{ id: "a", body: "x" }]);
  const mode = await sql<{ journal_mode: string }>`PRAGMA journal_mode`.execute(second);
  const synchronous = await sql<{ synchronous: number }>`PRAGMA synchronous`.execute(second);
  assert.equal(mode.rows[0]?.journal_mode, "wal");
  assert.equal(synchronous.rows[0]?.synchronous, 2, "FULL: a commit is on disk when it returns");
  await second.destroy();
});

test("a changed, reordered or unknown migration is refused and changes nothing", async (t) => {
  const path = join(await temporaryDirectory(t), "jobs.db");
  await openDatabase({ path, migrations: [create, index] }).destroy();
  const refused = { code: "COV_DATABASE_MIGRATION_CHANGED" };
  const changed = { ...create, sql: `${create.sql} STRICT` };
  for (const migrations of [[changed, index], [index, create], [create], []]) {
    assert.throws(() => openDatabase({ path, migrations }), refused);
  }
  await openDatabase({ path, migrations: [create, index] }).destroy();
});

test("a migration that fails leaves the schema as it was", async (t) => {
  const path = join(await temporaryDirectory(t), "jobs.db");
  const broken = {
    name: "002-broken",
    sql: "CREATE TABLE more (a TEXT); SELECT nonsense FROM none",
  };
  assert.throws(() => openDatabase({ path, migrations: [create, broken] }), /none/);
  const database = openDatabase({ path, migrations: [create] });
  const tables = await sql`SELECT name FROM sqlite_master WHERE name = 'more'`.execute(database);
  assert.deepEqual(tables.rows, []);
  await database.destroy();
});

test("a file that is no database, or a damaged one, is named with a remedy", async (t) => {
  const directory = await temporaryDirectory(t);
  const noise = join(directory, "noise.db");
  await writeFile(noise, "not a database ".repeat(500));
  const corrupt = (path: string) => {
    assert.throws(
      () => openDatabase({ path, migrations: [create] }),
      (error: unknown) => hasCode(error, "COV_DATABASE_CORRUPT") && error.remedy.includes(path),
    );
  };
  corrupt(noise);
  const path = join(directory, "jobs.db");
  const database = openDatabase<Tables>({ path, migrations: [create] });
  for (let i = 0; i < 200; i++) {
    await database
      .insertInto("jobs")
      .values({ id: String(i), body: "x".repeat(500) })
      .execute();
  }
  await database.destroy();
  const { length } = await readFile(path);
  const file = await open(path, "r+");
  for (let at = 8192; at + 4096 < length; at += 4096)
    await file.write(Buffer.alloc(64, 0xff), 0, 64, at);
  await file.close();
  corrupt(path);
});

test("SQLite's own words for a full disk become the catalogue's", () => {
  const full = Object.assign(new Error("database or disk is full"), { code: "SQLITE_FULL" });
  assert.ok(hasCode(fromDatabaseError(full, "/data/x.db"), "COV_DISK_FULL"));
});

test("a real full file system is said in words", async (t) => {
  const directory = join(await temporaryDirectory(t), "small");
  await mkdir(directory);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=24k", "tmpfs", directory]);
  if (mounted.status !== 0) return t.skip("needs the right to mount a tiny file system");
  try {
    const path = join(directory, "jobs.db");
    assert.throws(() => openDatabase({ path, migrations: [create, index] }), {
      code: "COV_DISK_FULL",
      remedy: new RegExp(directory),
    });
  } finally {
    spawnSync("umount", [directory]);
  }
});
