import type {
  Effect,
  JobEvent,
  JobPolicy,
  JobRecord,
  NodeOffer,
  NodeView,
} from "@covenant/marketplace";
import {
  isActiveTask,
  isFinalJob,
  nodeViews,
  planQueue,
  planReplacements,
  reduceJob,
} from "@covenant/marketplace";
import type { Clock, Logger } from "@covenant/runtime";
import type { NodeRecord, SchedulerState } from "./state.ts";
import { Draft } from "./state.ts";

/** An effect with the job that it belongs to. */
export type JobEffect = Effect & { readonly jobId: string };

/** What a change may read and write. */
export interface Change {
  readonly draft: Draft;
  readonly nowMs: number;
  /** Applies an event to a job; unknown jobs ignore it. */
  apply(jobId: string, event: JobEvent): void;
  /** Tells a node something once the change is stored. */
  tell(effect: JobEffect): void;
}

/** The world around the loop. */
export interface ControlLoopModules {
  readonly state: SchedulerState;
  readonly store: (draft: Draft) => Promise<void>;
  readonly deliver: (effect: JobEffect) => void;
  /** Called after a job's change is stored. */
  readonly changed: (job: JobRecord) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** How the loop treats time. */
export interface ControlLoopOptions {
  readonly policy: JobPolicy;
  /** Away for this long, a node counts as lost and its tasks are placed anew. */
  readonly nodeLostAfterMs: number;
  readonly tickMs: number;
  /** Changes that may wait; more are refused. */
  readonly queueMax: number;
}

interface Waiting {
  run(change: Change): void;
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * The single writer. Changes are queued and applied in batches: each batch runs the changes, then
 * deadlines and placement, is stored in one transaction, and only then becomes visible and reaches
 * nodes. What a caller saw resolved is durable.
 */
export class ControlLoop {
  readonly #options: ControlLoopOptions;
  readonly #modules: ControlLoopModules;
  readonly #queue: Waiting[] = [];
  readonly #positions = new Map<string, number>();
  /** Connected nodes, and since when the others are away. */
  readonly #connected = new Set<string>();
  readonly #awaySinceMs = new Map<string, number>();
  #active: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ControlLoopOptions, modules: ControlLoopModules) {
    this.#options = options;
    this.#modules = modules;
    // After a restart every node is away; its tasks get the usual time to show up again.
    const nowMs = modules.clock.nowMs();
    for (const id of modules.state.nodes.keys()) this.#awaySinceMs.set(id, nowMs);
  }

  /** Begins to apply deadlines. */
  start(): void {
    this.#timer = setInterval(() => void this.#wake(), this.#options.tickMs);
    void this.#wake();
  }

  /** Finishes what is queued and stops. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    while (this.#active !== undefined) await this.#active;
  }

  /** True while more changes are accepted. */
  get hasRoom(): boolean {
    return this.#queue.length < this.#options.queueMax;
  }

  /**
   * Runs a change with the next batch; resolves with its result once it is stored. An error thrown
   * by the change rejects this call alone; a change checks everything before it writes anything.
   */
  run<T>(action: (change: Change) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      let result: { value: T } | undefined;
      this.#queue.push({
        run: (change) => {
          result = { value: action(change) };
        },
        resolve: () => resolve(result!.value),
        reject,
      });
      void this.#wake();
    });
  }

  setConnected(nodeId: string, connected: boolean): void {
    if (connected) {
      this.#connected.add(nodeId);
      this.#awaySinceMs.delete(nodeId);
    } else if (this.#connected.delete(nodeId)) {
      this.#awaySinceMs.set(nodeId, this.#modules.clock.nowMs());
    }
    void this.#wake();
  }

  /** Place in the queue from 1; 0 when the job does not wait. */
  positionOf(jobId: string): number {
    return this.#positions.get(jobId) ?? 0;
  }

  /** Nodes with what is free on them. */
  views(nodes: readonly NodeRecord[], jobs: readonly JobRecord[]): NodeView[] {
    return nodeViews(this.#offers(nodes), jobs);
  }

  #offers(nodes: readonly NodeRecord[]): NodeOffer[] {
    return nodes.map(({ id, capacity, workloads }) => {
      return { id, capacity, workloads, connected: this.#connected.has(id) };
    });
  }

  #wake(): Promise<void> {
    this.#active ??= this.#drain().finally(() => {
      this.#active = undefined;
    });
    return this.#active;
  }

  async #drain(): Promise<void> {
    let again = true;
    while (again || this.#queue.length > 0) again = await this.#batch();
  }

  /** Returns true when it changed something, so that what follows from it is done at once. */
  async #batch(): Promise<boolean> {
    const { state, store, deliver, changed, clock, logger } = this.#modules;
    const waiting = this.#queue.splice(0);
    const draft = new Draft(state);
    const effects: JobEffect[] = [];
    const change = this.#change(draft, effects, clock.nowMs());
    const done = waiting.filter((entry) => runGuarded(entry, change));
    try {
      this.#plan(change);
      if (!draft.isEmpty) await store(draft);
    } catch (error) {
      logger.error({ error: String(error) }, "changes could not be stored");
      for (const entry of done) entry.reject(error);
      return false;
    }
    draft.commit();
    for (const effect of effects) deliver(effect);
    for (const job of draft.jobs.values()) changed(job.record);
    for (const entry of done) entry.resolve();
    return draft.jobs.size > 0;
  }

  #change(draft: Draft, effects: JobEffect[], nowMs: number): Change {
    const { policy } = this.#options;
    return {
      draft,
      nowMs,
      apply: (jobId, event) => {
        const stored = draft.job(jobId);
        if (stored === undefined) return;
        const next = reduceJob(stored.record, event, nowMs, policy);
        if (next.job === stored.record) return;
        draft.setRecord(next.job);
        for (const effect of next.effects) effects.push({ ...effect, jobId });
      },
      tell: (effect) => effects.push(effect),
    };
  }

  /** Deadlines, lost nodes, then placement, in this order, on the draft. */
  #plan(change: Change): void {
    const { draft } = change;
    const open = () =>
      draft
        .allJobs()
        .map((job) => job.record)
        .filter((job) => !isFinalJob(job.state));
    for (const job of open()) {
      this.#loseTasks(job, change);
      this.#begin(job, change);
      change.apply(job.id, { type: "tick" });
    }
    const offers = this.#offers(draft.allNodes());
    for (const { jobId, task, nodeId } of planReplacements(offers, open())) {
      change.apply(jobId, { type: "task-replaced", task, nodeId });
    }
    this.#positions.clear();
    for (const decision of planQueue(offers, open(), change.nowMs)) {
      const { jobId } = decision;
      if (decision.placed) {
        change.apply(jobId, { type: "placed", assignment: decision.assignment });
        continue;
      }
      this.#positions.set(jobId, decision.position);
      change.apply(jobId, { type: "waiting", reason: decision.reason });
    }
  }

  /** A reservation becomes a start when every node of it is still there. */
  #begin(job: JobRecord, change: Change): void {
    if (job.state !== "RESERVED") return;
    if (job.tasks.every((task) => this.#connected.has(task.nodeId)))
      change.apply(job.id, { type: "begin" });
  }

  #loseTasks(job: JobRecord, change: Change): void {
    for (const task of job.tasks) {
      if (!isActiveTask(task.state)) continue;
      const sinceMs = this.#awaySinceMs.get(task.nodeId);
      if (sinceMs === undefined || change.nowMs - sinceMs < this.#options.nodeLostAfterMs) continue;
      const seconds = Math.round((change.nowMs - sinceMs) / 1_000);
      const reason = `its node ${task.nodeId} has been away for ${seconds} s`;
      change.apply(job.id, { type: "task-lost", task: task.name, reason });
    }
  }
}

function runGuarded(entry: Waiting, change: Change): boolean {
  try {
    entry.run(change);
    return true;
  } catch (error) {
    entry.reject(error);
    return false;
  }
}
