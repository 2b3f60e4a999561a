// Runs the job that is there, phase by phase, through failures and restarts.
import { CovenantError, fromUnknown } from "@covenant/runtime";
import { isOver, type Job, newJob, type PhaseName } from "../state/job.ts";
import type { PhaseContext, PipelineModules, PipelineOptions } from "./context.ts";
import { runPolicy } from "./policy-phase.ts";
import { receive, waitForCheckpoint } from "./receive.ts";
import { evaluateBefore, release } from "./release.ts";
import { runSupervised } from "./supervised-phase.ts";

const phases: Partial<Record<PhaseName, (context: PhaseContext) => Promise<void>>> = {
  waiting_for_checkpoint: waitForCheckpoint,
  receiving: receive,
  sft: runSupervised,
  evaluating: evaluateBefore,
  grpo: runPolicy,
  releasing: release,
};

/** Consecutive failures after which a job is given up. */
const attemptsMax = 30;
const retryDelayMs = 1000;

/** What a caller asks for. */
export type JobRequest = Pick<Job, "idempotencyKey" | "runId" | "requestedRoot">;

/**
 * One job at a time. `start` records a job; `run` does its phases. Every change of the job is on disk
 * before anybody hears of it, so a process that is killed goes on where it was.
 */
export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #modules: PipelineModules;
  #job: Job | undefined;

  private constructor(options: PipelineOptions, modules: PipelineModules, job: Job | undefined) {
    this.#options = options;
    this.#modules = modules;
    this.#job = job;
  }

  /** Opens the pipeline with the job that the store has. */
  static async open(options: PipelineOptions, modules: PipelineModules): Promise<Pipeline> {
    return new Pipeline(options, modules, await modules.store.newestJob());
  }

  /** The job at work, or the last one. */
  get job(): Job | undefined {
    return this.#job;
  }

  /** Records a job, or finds the one that the same key started. */
  async start(request: JobRequest): Promise<Job> {
    const { store, changes } = this.#modules;
    const known = await store.findJob({ idempotencyKey: request.idempotencyKey });
    if (known !== undefined) {
      if (known.runId !== request.runId || known.requestedRoot !== request.requestedRoot) {
        throw new CovenantError(
          "COV_IDEMPOTENCY_CONFLICT",
          `The key ${request.idempotencyKey} has started another job.`,
          { metadata: { jobId: known.jobId } },
        );
      }
      return known;
    }
    if (this.#job !== undefined && !isOver(this.#job)) {
      throw new CovenantError("COV_POST_TRAINING_ACTIVE", `Job ${this.#job.jobId} is under way.`, {
        metadata: { jobId: this.#job.jobId },
      });
    }
    const number = this.#job === undefined ? 1 : Number(this.#job.jobId.split("-").at(-1)) + 1;
    const job = newJob({ ...request, jobId: `${request.runId}-post-${number}` });
    await store.saveJob(job);
    this.#job = job;
    changes.notify();
    return job;
  }

  /** Works until the signal aborts; a failure that may pass is tried again. */
  async run(signal: AbortSignal): Promise<void> {
    const { changes, clock, logger } = this.#modules;
    let failures = 0;
    while (!signal.aborted) {
      const since = changes.version;
      const job = this.#job;
      const phase = job && phases[job.phase];
      if (phase === undefined) {
        await changes.changed(since, signal);
        continue;
      }
      try {
        await phase(this.#context(signal));
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        const known = fromUnknown(error);
        failures++;
        logger.error({ err: error, phase: job!.phase, failures }, "phase failed");
        if (!known.retryable || failures >= attemptsMax) {
          await this.#update({ phase: "failed", reason: `${known.code}: ${known.message}` });
          continue;
        }
        await clock.sleep(retryDelayMs, signal).catch(() => undefined);
      }
    }
  }

  async #update(change: Partial<Job>): Promise<void> {
    const next = { ...this.#job!, ...change };
    await this.#modules.store.saveJob(next);
    this.#job = next;
    this.#modules.changes.notify();
  }

  #context(signal: AbortSignal): PhaseContext {
    const pipeline = this;
    return {
      get job() {
        return pipeline.#job!;
      },
      options: this.#options,
      modules: this.#modules,
      signal,
      update: (change) => this.#update(change),
    };
  }
}
