import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { SubmitJobRequestSchema, SubmitJobResponseSchema } from "@covenant/contracts/basilica";
import type { Kysely } from "kysely";
import { openDatabase } from "../database/open.ts";
import { systemClock } from "../time/clock.ts";
import type { IdempotencyTable } from "./idempotency.ts";
import { IDEMPOTENCY_MIGRATION, IDEMPOTENCY_RETENTION_MS, runOnce } from "./idempotency.ts";

interface Tables extends IdempotencyTable {
  jobs: { id: string };
}

const jobs = { name: "001-jobs", sql: "CREATE TABLE jobs (id TEXT PRIMARY KEY)" };

function setUp() {
  const migrations = [jobs, IDEMPOTENCY_MIGRATION];
  const database = openDatabase<Tables>({ path: ":memory:", migrations });
  const time = { nowMs: 1_000_000 };
  const clock = { ...systemClock, nowMs: () => time.nowMs };
  let made = 0;
  const submit = (key: string, name = "job", caller = "operator", fail = false) =>
    runOnce(
      {
        caller,
        method: "covenant.basilica.v1.Scheduler/SubmitJob",
        key,
        input: SubmitJobRequestSchema,
        request: create(SubmitJobRequestSchema, { idempotencyKey: key, spec: { name } }),
        output: SubmitJobResponseSchema,
      },
      { database, clock },
      async (transaction) => {
        const id = `job-${++made}`;
        await transaction.insertInto("jobs").values({ id }).execute();
        if (fail) throw new Error("half-way");
        return create(SubmitJobResponseSchema, { job: { id } });
      },
    ).then(({ job }) => job?.id);
  return { database, time, submit };
}

async function jobIds(database: Kysely<Tables>): Promise<string[]> {
  const rows = await database.selectFrom("jobs").select("id").execute();
  return rows.map(({ id }) => id);
}

test("the same key and request give the same response, and the work is done once", async () => {
  const { submit, database } = setUp();
  assert.equal(await submit("k"), "job-1");
  assert.equal(await submit("k"), "job-1");
  assert.deepEqual(await Promise.all([submit("p"), submit("p"), submit("p")]), [
    "job-2",
    "job-2",
    "job-2",
  ]);
  assert.deepEqual(await jobIds(database), ["job-1", "job-2"]);
});

test("the same key for another request is a conflict; callers do not meet", async () => {
  const { submit } = setUp();
  await submit("k", "one");
  await assert.rejects(submit("k", "two"), { code: "COV_IDEMPOTENCY_CONFLICT" });
  assert.equal(await submit("k", "two", "somebody else"), "job-2");
});

test("work that fails leaves nothing, so that the key can be used again", async () => {
  const { submit, database } = setUp();
  await assert.rejects(submit("k", "job", "operator", true), /half-way/);
  assert.deepEqual(await jobIds(database), []);
  assert.equal(await submit("k"), "job-2");
});

test("keys have a length and records an age", async () => {
  const { submit, time } = setUp();
  const refused = { code: "COV_INVALID_ARGUMENT", metadata: { field: "idempotency_key" } };
  await assert.rejects(submit(""), refused);
  await assert.rejects(submit("k".repeat(129)), refused);
  await submit("k", "one");
  time.nowMs += IDEMPOTENCY_RETENTION_MS + 1;
  assert.equal(await submit("k", "two"), "job-2");
});
