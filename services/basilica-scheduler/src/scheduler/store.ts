import type { JobRecord } from "@covenant/marketplace";
import type { Kysely } from "kysely";
import type { Draft, NodeRecord, SchedulerState, StoredJob, UsageRecord } from "./state.ts";
import { usageKey } from "./state.ts";

/** Tables of the scheduler; records are JSON, since only this process reads them. */
export interface SchedulerDatabase {
  jobs: {
    id: string;
    idempotency_key: string;
    spec_hash: string;
    state: string;
    created_at_ms: number;
    record: string;
  };
  nodes: { id: string; sequence: number; record: string };
  usage: {
    job_id: string;
    task: string;
    node_id: string;
    cpu_micros: number;
    wall_millis: number;
    peak_rss_bytes: number;
    sample_count: number;
  };
}

/** Plain SQL, applied in order once. */
export const migrations = [
  {
    name: "0001-jobs-nodes-usage",
    sql: `
      create table jobs (
        id text primary key,
        idempotency_key text not null unique,
        spec_hash text not null,
        state text not null,
        created_at_ms integer not null,
        record text not null
      );
      create table nodes (id text primary key, sequence integer not null, record text not null);
      create table usage (
        job_id text not null,
        task text not null,
        node_id text not null,
        cpu_micros integer not null,
        wall_millis integer not null,
        peak_rss_bytes integer not null,
        sample_count integer not null,
        primary key (job_id, task, node_id)
      );
    `,
  },
];

/** Reads everything back. */
export async function loadState(database: Kysely<SchedulerDatabase>): Promise<SchedulerState> {
  const state: SchedulerState = { jobs: new Map(), nodes: new Map(), usage: new Map() };
  for (const row of await database.selectFrom("jobs").selectAll().execute()) {
    const record = JSON.parse(row.record) as JobRecord;
    const { idempotency_key: idempotencyKey, spec_hash: specHash } = row;
    state.jobs.set(row.id, { record, idempotencyKey, specHash });
  }
  for (const row of await database.selectFrom("nodes").selectAll().execute()) {
    const node = JSON.parse(row.record) as NodeRecord;
    state.nodes.set(row.id, { ...node, sequence: row.sequence });
  }
  for (const row of await database.selectFrom("usage").selectAll().execute()) {
    const usage: UsageRecord = {
      jobId: row.job_id,
      task: row.task,
      nodeId: row.node_id,
      cpuMicros: row.cpu_micros,
      wallMillis: row.wall_millis,
      peakRssBytes: row.peak_rss_bytes,
      sampleCount: row.sample_count,
    };
    state.usage.set(usageKey(usage), usage);
  }
  return state;
}

/** Stores all changes of a draft in one transaction. */
export async function storeDraft(database: Kysely<SchedulerDatabase>, draft: Draft): Promise<void> {
  await database.transaction().execute(async (transaction) => {
    for (const job of draft.jobs.values()) {
      const row = jobRow(job);
      const { state, record } = row;
      await transaction
        .insertInto("jobs")
        .values(row)
        .onConflict((conflict) => conflict.column("id").doUpdateSet({ state, record }))
        .execute();
    }
    for (const node of draft.nodes.values()) {
      const { id, sequence } = node;
      const record = JSON.stringify(node);
      await transaction
        .insertInto("nodes")
        .values({ id, sequence, record })
        .onConflict((conflict) => conflict.column("id").doUpdateSet({ sequence, record }))
        .execute();
    }
    for (const usage of draft.usage.values()) {
      const sums = usageSums(usage);
      await transaction
        .insertInto("usage")
        .values({ job_id: usage.jobId, task: usage.task, node_id: usage.nodeId, ...sums })
        .onConflict((conflict) => conflict.columns(["job_id", "task", "node_id"]).doUpdateSet(sums))
        .execute();
    }
  });
}

/** Deletes final jobs beyond the newest `keep`; their usage stays, since it is billed. */
export async function deleteJobs(
  database: Kysely<SchedulerDatabase>,
  ids: string[],
): Promise<void> {
  if (ids.length > 0) await database.deleteFrom("jobs").where("id", "in", ids).execute();
}

function jobRow({ record, idempotencyKey, specHash }: StoredJob): SchedulerDatabase["jobs"] {
  return {
    id: record.id,
    idempotency_key: idempotencyKey,
    spec_hash: specHash,
    state: record.state,
    created_at_ms: record.createdAtMs,
    record: JSON.stringify(record),
  };
}

function usageSums(usage: UsageRecord) {
  return {
    cpu_micros: usage.cpuMicros,
    wall_millis: usage.wallMillis,
    peak_rss_bytes: usage.peakRssBytes,
    sample_count: usage.sampleCount,
  };
}
