import { randomBytes } from "node:crypto";
import type { Job, Node } from "@covenant/contracts/basilica";
import type { JobRecord, JobSpec } from "@covenant/marketplace";
import { checkFeasible, checkJobSpec, createJob, isFinalJob } from "@covenant/marketplace";
import { CovenantError } from "@covenant/runtime";
import type { Change, ControlLoop } from "./control-loop.ts";
import { fromJob, fromNode } from "./convert.ts";
import type { SchedulerState, UsageRecord } from "./state.ts";

/** Jobs that may be open at once. */
const openJobsMax = 1_000;
/** Watchers that may be open at once. */
const watchersMax = 500;

/** A submission by a known caller. */
export interface Submission {
  readonly idempotencyKey: string;
  readonly spec: JobSpec;
  /** SHA-256 of the submitted specification, hex. */
  readonly specHash: string;
  readonly owner: string;
}

/** What callers ask of the jobs: reads from the stored state, changes through the loop. */
export class JobBoard {
  readonly #state: SchedulerState;
  readonly #loop: ControlLoop;
  readonly #watchers = new Set<(job: JobRecord) => void>();

  constructor(modules: { state: SchedulerState; loop: ControlLoop }) {
    this.#state = modules.state;
    this.#loop = modules.loop;
  }

  /**
   * Accepts a job, or returns the one that the same key was used for. Errors: COV_INVALID_ARGUMENT
   * with every problem, COV_JOB_INFEASIBLE, COV_JOB_NAME_TAKEN, COV_IDEMPOTENCY_CONFLICT,
   * COV_RESOURCE_EXHAUSTED.
   */
  async submit(submission: Submission): Promise<Job> {
    const problems = checkJobSpec(submission.spec);
    if (problems.length > 0) {
      const text = problems.map(({ field, problem }) => `${field} ${problem}`).join("; ");
      const metadata = Object.fromEntries(problems.map(({ field, problem }) => [field, problem]));
      throw new CovenantError("COV_INVALID_ARGUMENT", `the job has errors: ${text}`, { metadata });
    }
    if (!this.#loop.hasRoom) throw new CovenantError("COV_BUSY", "too many changes are waiting");
    const id = await this.#loop.run((change) => this.#accept(change, submission));
    return this.get(id);
  }

  #accept(change: Change, submission: Submission): string {
    const { idempotencyKey, spec, specHash, owner } = submission;
    const { draft, nowMs } = change;
    const jobs = draft.allJobs();
    const earlier = jobs.find((job) => job.idempotencyKey === idempotencyKey);
    if (earlier !== undefined) {
      if (earlier.specHash === specHash && earlier.record.owner === owner) return earlier.record.id;
      throw new CovenantError(
        "COV_IDEMPOTENCY_CONFLICT",
        `key ${idempotencyKey} belongs to another job`,
      );
    }
    const open = jobs.map((job) => job.record).filter((job) => !isFinalJob(job.state));
    if (open.length >= openJobsMax) {
      throw new CovenantError("COV_RESOURCE_EXHAUSTED", `${openJobsMax} jobs are open already`);
    }
    const namesake = open.find((job) => job.spec.name === spec.name);
    if (namesake !== undefined) {
      const metadata = { jobId: namesake.id, state: namesake.state };
      throw new CovenantError("COV_JOB_NAME_TAKEN", `job "${spec.name}" has not ended`, {
        metadata,
      });
    }
    const views = this.#loop.views(draft.allNodes(), open);
    const feasibility = checkFeasible(views, spec.tasks, spec.strategy);
    if (!feasibility.feasible) {
      const metadata = { task: feasibility.task ?? "", nodes: views.length };
      throw new CovenantError("COV_JOB_INFEASIBLE", feasibility.reason, { metadata });
    }
    const id = `job-${randomBytes(8).toString("hex")}`;
    draft.jobs.set(id, { record: createJob(id, owner, spec, nowMs), idempotencyKey, specHash });
    return id;
  }

  /** Begins to stop a job; one that has ended stays as it is. */
  async cancel(jobId: string, reason: string): Promise<Job> {
    this.#record(jobId);
    await this.#loop.run((change) => change.apply(jobId, { type: "cancel", reason }));
    return this.get(jobId);
  }

  /** Throws COV_NOT_FOUND. */
  get(jobId: string): Job {
    return this.#view(this.#record(jobId));
  }

  /** Records of all jobs, newest first. */
  records(): JobRecord[] {
    return [...this.#state.jobs.values()]
      .map((job) => job.record)
      .sort((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : -1));
  }

  list(offset: number, count: number): { jobs: Job[]; more: boolean } {
    const records = this.records();
    const jobs = records.slice(offset, offset + count).map((record) => this.#view(record));
    return { jobs, more: records.length > offset + count };
  }

  nodes(offset: number, count: number): { nodes: Node[]; more: boolean } {
    const records = [...this.#state.nodes.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    const views = this.#loop.views(records, this.records());
    const nodes = records.map((record, index) => fromNode(record, views[index]!));
    return { nodes: nodes.slice(offset, offset + count), more: records.length > offset + count };
  }

  /** Use by task, of one job or of all. */
  usage(jobId: string): UsageRecord[] {
    return [...this.#state.usage.values()].filter((row) => jobId === "" || row.jobId === jobId);
  }

  /** True when the job and the task exist. */
  hasTask(jobId: string, task: string): boolean {
    return this.#record(jobId).tasks.some((entry) => entry.name === task);
  }

  /** True once a job has ended, or is no longer known. */
  isOver(jobId: string): boolean {
    const stored = this.#state.jobs.get(jobId);
    return stored === undefined || isFinalJob(stored.record.state);
  }

  /** Called by the loop with every stored change. */
  changed(job: JobRecord): void {
    for (const watcher of this.#watchers) watcher(job);
  }

  /**
   * Yields present states, then changes, of one job (until it ends) or of all. A slow reader gets
   * the newest state of each job and misses those between.
   */
  async *watch(jobId: string, signal: AbortSignal): AsyncGenerator<Job> {
    if (this.#watchers.size >= watchersMax)
      throw new CovenantError("COV_BUSY", "too many watchers");
    const pending = new Map<string, JobRecord>();
    let wake: () => void = () => undefined;
    const watcher = (job: JobRecord): void => {
      if (jobId !== "" && job.id !== jobId) return;
      pending.set(job.id, job);
      wake();
    };
    const abort = (): void => wake();
    const present = jobId === "" ? this.records().reverse() : [this.#record(jobId)];
    for (const record of present) pending.set(record.id, record);
    this.#watchers.add(watcher);
    signal.addEventListener("abort", abort);
    try {
      while (!signal.aborted) {
        const batch = [...pending.values()];
        pending.clear();
        for (const record of batch) yield this.#view(record);
        if (jobId !== "" && pending.size === 0 && this.isOver(jobId)) return;
        if (pending.size > 0 || signal.aborted) continue;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      this.#watchers.delete(watcher);
      signal.removeEventListener("abort", abort);
    }
  }

  #record(jobId: string): JobRecord {
    const stored = this.#state.jobs.get(jobId);
    if (stored === undefined)
      throw new CovenantError("COV_NOT_FOUND", `there is no job "${jobId}"`);
    return stored.record;
  }

  #view(record: JobRecord): Job {
    return fromJob(record, this.#loop.positionOf(record.id));
  }
}
