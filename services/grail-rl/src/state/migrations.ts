// Tables of the service's database; applied in order, once each.

/** All migrations. */
export const migrations = [
  {
    name: "001-jobs-contracts-groups",
    sql: `
      create table jobs (
        job_id text primary key,
        idempotency_key text not null unique,
        position integer not null,
        document text not null
      );
      create table contracts (
        contract_id text primary key,
        job_id text not null,
        slots integer not null,
        body blob not null
      );
      create table groups (
        group_id text primary key,
        contract_id text not null,
        job_id text not null,
        slot integer not null,
        hotkey text not null,
        phase text not null,
        deadline_block integer not null,
        committed_at_block integer not null,
        challenge_block integer not null,
        reason text not null,
        commitment blob,
        openings blob,
        verdict blob
      );
      create index groups_by_contract on groups (contract_id);
      create index groups_by_job on groups (job_id, hotkey, phase);
    `,
  },
];
