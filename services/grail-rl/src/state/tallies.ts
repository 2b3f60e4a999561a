// Counts of accepted and rejected groups, in all and by worker.

/** Accepted and rejected groups; rejected ones by the name of the reason. */
export interface WorkerCounts {
  accepted: number;
  rejected: Record<string, number>;
}

/** Counts of a job. */
export interface Tally extends WorkerCounts {
  /** By hotkey. */
  workers: Record<string, WorkerCounts>;
}

/** A row of counts, as the database groups them. */
export interface TallyRow {
  hotkey: string;
  phase: string;
  reason: string;
  groups: number;
}

/** Adds rows up; phases other than accepted and rejected do not count. */
export function tallyOf(rows: readonly TallyRow[]): Tally {
  const tally: Tally = { accepted: 0, rejected: {}, workers: {} };
  for (const row of rows) {
    if (row.phase !== "accepted" && row.phase !== "rejected") continue;
    tally.workers[row.hotkey] ??= { accepted: 0, rejected: {} };
    for (const counts of [tally, tally.workers[row.hotkey]!]) {
      if (row.phase === "accepted") counts.accepted += row.groups;
      else counts.rejected[row.reason] = (counts.rejected[row.reason] ?? 0) + row.groups;
    }
  }
  return tally;
}
