import type { JobRecord, Resources, Usage } from "@covenant/marketplace";

/** An enrolled node. */
export interface NodeRecord {
  readonly id: string;
  /** The hotkey that enrolled it; nobody else can speak for this node. */
  readonly hotkey: string;
  readonly capacity: Resources;
  readonly workloads: readonly string[];
  readonly lastSeenAtMs: number;
  /** Everything the node reported up to here is stored. */
  readonly sequence: number;
}

/** Use of one task on one node. */
export interface UsageRecord extends Usage {
  readonly jobId: string;
  readonly task: string;
  readonly nodeId: string;
}

/** A job as it is stored, with what makes its submission idempotent. */
export interface StoredJob {
  readonly record: JobRecord;
  readonly idempotencyKey: string;
  /** SHA-256 of the submitted specification, hex. */
  readonly specHash: string;
}

/** All that the scheduler knows and must not forget. */
export interface SchedulerState {
  readonly jobs: Map<string, StoredJob>;
  readonly nodes: Map<string, NodeRecord>;
  readonly usage: Map<string, UsageRecord>;
}

/** Names a usage row. */
export function usageKey(row: { jobId: string; task: string; nodeId: string }): string {
  return `${row.jobId}/${row.task}/${row.nodeId}`;
}

/**
 * Changes on top of a state, not yet stored: read through it, write into it, store what it holds,
 * then commit. When storing fails, nothing has happened.
 */
export class Draft {
  readonly #base: SchedulerState;
  readonly jobs = new Map<string, StoredJob>();
  readonly nodes = new Map<string, NodeRecord>();
  readonly usage = new Map<string, UsageRecord>();

  constructor(base: SchedulerState) {
    this.#base = base;
  }

  get isEmpty(): boolean {
    return this.jobs.size + this.nodes.size + this.usage.size === 0;
  }

  job(id: string): StoredJob | undefined {
    return this.jobs.get(id) ?? this.#base.jobs.get(id);
  }

  node(id: string): NodeRecord | undefined {
    return this.nodes.get(id) ?? this.#base.nodes.get(id);
  }

  usageOf(key: string): UsageRecord | undefined {
    return this.usage.get(key) ?? this.#base.usage.get(key);
  }

  allJobs(): StoredJob[] {
    return overlaid(this.#base.jobs, this.jobs);
  }

  allNodes(): NodeRecord[] {
    return overlaid(this.#base.nodes, this.nodes);
  }

  setRecord(record: JobRecord): void {
    const stored = this.job(record.id);
    if (stored === undefined) throw new Error(`job ${record.id} is not in the state`);
    this.jobs.set(record.id, { ...stored, record });
  }

  commit(): void {
    for (const [id, job] of this.jobs) this.#base.jobs.set(id, job);
    for (const [id, node] of this.nodes) this.#base.nodes.set(id, node);
    for (const [key, row] of this.usage) this.#base.usage.set(key, row);
  }
}

function overlaid<T>(base: ReadonlyMap<string, T>, over: ReadonlyMap<string, T>): T[] {
  const list = [...base].map(([id, value]) => over.get(id) ?? value);
  for (const [id, value] of over) if (!base.has(id)) list.push(value);
  return list;
}
