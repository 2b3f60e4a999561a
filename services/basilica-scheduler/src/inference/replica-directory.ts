import type { Client } from "@connectrpc/connect";
import type { Inference, Model } from "@covenant/contracts/basilica";
import type { JobRecord } from "@covenant/marketplace";
import type { Clock, Logger } from "@covenant/runtime";
import { fromUnknown } from "@covenant/runtime";

/** How long what is known of the replicas counts as fresh. */
const freshMs = 2_000;
/** How long a replica may take to say what it serves. */
const listTimeoutMs = 3_000;

/** A running replica and what it serves. */
export interface Replica {
  readonly endpoint: string;
  readonly client: Client<typeof Inference>;
  models: readonly Model[];
  /** Requests that this process has open at the replica. */
  outstanding: number;
}

interface Modules {
  readonly jobs: () => readonly JobRecord[];
  readonly connect: (endpoint: string) => Client<typeof Inference>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Finds the replicas among the running tasks and asks them what they serve. */
export class ReplicaDirectory {
  readonly #workloads: ReadonlySet<string>;
  readonly #modules: Modules;
  readonly #replicas = new Map<string, Replica>();
  #refreshedAtMs = Number.NEGATIVE_INFINITY;
  #refreshing: Promise<void> | undefined;

  constructor(options: { workloads: readonly string[] }, modules: Modules) {
    this.#workloads = new Set(options.workloads);
    this.#modules = modules;
  }

  /** All replicas that answer, asked anew when the last answers are old. */
  async all(): Promise<Replica[]> {
    const ageMs = this.#modules.clock.nowMs() - this.#refreshedAtMs;
    if (ageMs > freshMs) await this.#refresh();
    return [...this.#replicas.values()].filter((replica) => replica.models.length > 0);
  }

  /** Replicas of a model, least busy first; an empty id means the only model there is. */
  async serving(modelId: string): Promise<Replica[]> {
    const replicas = await this.all();
    const ids = new Set(replicas.flatMap((replica) => replica.models.map((model) => model.id)));
    const [only] = ids;
    const id = modelId === "" && ids.size === 1 ? only : modelId;
    return replicas
      .filter((replica) => replica.models.some((model) => model.id === id))
      .sort((a, b) => a.outstanding - b.outstanding);
  }

  /** The next question asks all replicas again. */
  expire(): void {
    this.#refreshedAtMs = Number.NEGATIVE_INFINITY;
  }

  #refresh(): Promise<void> {
    this.#refreshing ??= this.#ask().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #ask(): Promise<void> {
    const endpoints = new Set(this.#endpoints());
    for (const endpoint of this.#replicas.keys()) {
      if (!endpoints.has(endpoint)) this.#replicas.delete(endpoint);
    }
    for (const endpoint of endpoints) {
      if (this.#replicas.has(endpoint)) continue;
      const client = this.#modules.connect(endpoint);
      this.#replicas.set(endpoint, { endpoint, client, models: [], outstanding: 0 });
    }
    await Promise.all([...this.#replicas.values()].map((replica) => this.#askOne(replica)));
    this.#refreshedAtMs = this.#modules.clock.nowMs();
  }

  async #askOne(replica: Replica): Promise<void> {
    try {
      const { models } = await replica.client.listModels({}, { timeoutMs: listTimeoutMs });
      replica.models = models;
    } catch (error) {
      const { code, message } = fromUnknown(error);
      this.#modules.logger.debug(
        { endpoint: replica.endpoint, code, message },
        "replica is silent",
      );
      replica.models = [];
    }
  }

  #endpoints(): string[] {
    return this.#modules.jobs().flatMap((job) =>
      job.tasks.flatMap((task, index) => {
        const { workload } = job.spec.tasks[index]!;
        const serves = task.state === "RUNNING" && task.endpoint !== "";
        return serves && this.#workloads.has(workload) ? [task.endpoint] : [];
      }),
    );
  }
}
