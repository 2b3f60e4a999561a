// Jobs, contracts and groups in the service's database.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type RolloutContract, RolloutContractSchema } from "@covenant/contracts/grail";
import type { GroupState } from "@covenant/grail";
import { openDatabase } from "@covenant/runtime";
import type { Kysely, Transaction } from "kysely";
import type { Job } from "./job.ts";
import { migrations } from "./migrations.ts";
import { type Tally, tallyOf } from "./tallies.ts";

/** A group with what was delivered for it, as messages in binary form. */
export interface GroupRow extends GroupState {
  contractId: string;
  jobId: string;
  commit?: Uint8Array;
  openings?: Uint8Array;
  verdict?: Uint8Array;
  /** Name of the verdict's reason; empty before. */
  reason: string;
}

interface GroupRecord {
  group_id: string;
  contract_id: string;
  job_id: string;
  slot: number;
  hotkey: string;
  phase: string;
  deadline_block: number;
  committed_at_block: number;
  challenge_block: number;
  reason: string;
  commitment: Uint8Array | null;
  openings: Uint8Array | null;
  verdict: Uint8Array | null;
}

/** The tables. */
export interface Tables {
  jobs: { job_id: string; idempotency_key: string; position: number; document: string };
  contracts: { contract_id: string; job_id: string; slots: number; body: Uint8Array };
  groups: GroupRecord;
}

/** Durable state of the service; a promise that has resolved is on disk. */
export class Store {
  readonly #database: Kysely<Tables>;

  private constructor(database: Kysely<Tables>) {
    this.#database = database;
  }

  /** Opens the database file, creating it if there is none. */
  static async open(path: string): Promise<Store> {
    return new Store(await openDatabase<Tables>({ path, migrations }));
  }

  /** The job asked for last. */
  async newestJob(): Promise<Job | undefined> {
    const row = await this.#database
      .selectFrom("jobs")
      .select("document")
      .orderBy("position", "desc")
      .executeTakeFirst();
    return row && (JSON.parse(row.document) as Job);
  }

  /** The job of an idempotency key or id. */
  async findJob(by: { idempotencyKey: string } | { jobId: string }): Promise<Job | undefined> {
    const query = this.#database.selectFrom("jobs").select("document");
    const row = await ("jobId" in by
      ? query.where("job_id", "=", by.jobId)
      : query.where("idempotency_key", "=", by.idempotencyKey)
    ).executeTakeFirst();
    return row && (JSON.parse(row.document) as Job);
  }

  /** Writes a job, new or changed. */
  async saveJob(job: Job): Promise<void> {
    const document = JSON.stringify(job);
    await this.#database.transaction().execute(async (transaction) => {
      const last = await transaction
        .selectFrom("jobs")
        .select((query) => query.fn.max("position").as("position"))
        .executeTakeFirst();
      await transaction
        .insertInto("jobs")
        .values({
          job_id: job.jobId,
          idempotency_key: job.idempotencyKey,
          position: Number(last?.position ?? 0) + 1,
          document,
        })
        .onConflict((conflict) => conflict.column("job_id").doUpdateSet({ document }))
        .execute();
    });
  }

  /** A contract by id. */
  async contract(
    contractId: string,
  ): Promise<{ contract: RolloutContract; slots: number } | undefined> {
    const row = await this.#database
      .selectFrom("contracts")
      .selectAll()
      .where("contract_id", "=", contractId)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    return { contract: fromBinary(RolloutContractSchema, bytesOf(row.body)), slots: row.slots };
  }

  /** Writes a new contract. */
  async saveContract(jobId: string, contract: RolloutContract, slots: number): Promise<void> {
    const body = toBinary(RolloutContractSchema, create(RolloutContractSchema, contract));
    await this.#database
      .insertInto("contracts")
      .values({ contract_id: contract.contractId, job_id: jobId, slots, body })
      .execute();
  }

  /** All groups of a contract. */
  async groups(contractId: string): Promise<GroupRow[]> {
    const rows = await this.#database
      .selectFrom("groups")
      .selectAll()
      .where("contract_id", "=", contractId)
      .orderBy("slot")
      .orderBy("group_id")
      .execute();
    return rows.map(toGroup);
  }

  /** One group. */
  async group(groupId: string): Promise<GroupRow | undefined> {
    const row = await this.#database
      .selectFrom("groups")
      .selectAll()
      .where("group_id", "=", groupId)
      .executeTakeFirst();
    return row && toGroup(row);
  }

  /** Writes groups, new or changed, all or none. */
  async saveGroups(groups: readonly GroupRow[]): Promise<void> {
    await this.#database.transaction().execute(async (transaction) => {
      for (const group of groups) await saveGroup(transaction, group);
    });
  }

  /** Counts of a job's verdicts. */
  async tally(jobId: string): Promise<Tally> {
    const rows = await this.#database
      .selectFrom("groups")
      .select((query) => ["hotkey", "phase", "reason", query.fn.countAll<number>().as("groups")])
      .where("job_id", "=", jobId)
      .groupBy(["hotkey", "phase", "reason"])
      .execute();
    return tallyOf(rows.map((row) => ({ ...row, groups: Number(row.groups) })));
  }

  /** Whether the worker's newest verdict of the job was a rejection. */
  async isOnProbation(jobId: string, hotkey: string): Promise<boolean> {
    const rows = await this.#database
      .selectFrom("groups")
      .select("phase")
      .where("job_id", "=", jobId)
      .where("hotkey", "=", hotkey)
      .where("phase", "in", ["accepted", "rejected"])
      .orderBy("committed_at_block", "desc")
      .limit(1)
      .execute();
    return rows[0]?.phase === "rejected";
  }

  /** Closes the file. */
  async close(): Promise<void> {
    await this.#database.destroy();
  }
}

async function saveGroup(transaction: Transaction<Tables>, group: GroupRow): Promise<void> {
  const record = toRecord(group);
  const { group_id: _, ...changes } = record;
  await transaction
    .insertInto("groups")
    .values(record)
    .onConflict((conflict) => conflict.column("group_id").doUpdateSet(changes))
    .execute();
}

function toRecord(group: GroupRow): GroupRecord {
  return {
    group_id: group.groupId,
    contract_id: group.contractId,
    job_id: group.jobId,
    slot: group.slot,
    hotkey: group.hotkey,
    phase: group.phase,
    deadline_block: group.deadlineBlock,
    committed_at_block: group.committedAtBlock,
    challenge_block: group.challengeBlock,
    reason: group.reason,
    commitment: group.commit ?? null,
    openings: group.openings ?? null,
    verdict: group.verdict ?? null,
  };
}

function toGroup(record: GroupRecord): GroupRow {
  return {
    groupId: record.group_id,
    contractId: record.contract_id,
    jobId: record.job_id,
    slot: record.slot,
    hotkey: record.hotkey,
    phase: record.phase as GroupState["phase"],
    deadlineBlock: record.deadline_block,
    committedAtBlock: record.committed_at_block,
    challengeBlock: record.challenge_block,
    reason: record.reason,
    ...(record.commitment && { commit: bytesOf(record.commitment) }),
    ...(record.openings && { openings: bytesOf(record.openings) }),
    ...(record.verdict && { verdict: bytesOf(record.verdict) }),
  };
}

/** The driver hands out Buffers, which are views into larger memory. */
function bytesOf(value: Uint8Array): Uint8Array {
  return Uint8Array.from(value);
}
