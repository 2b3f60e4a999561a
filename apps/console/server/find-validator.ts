// The validator is a task of the scheduler and may move; its endpoint is asked for, and remembered briefly.
import { Scheduler, TaskState } from "@covenant/contracts/basilica";
import { createClient } from "@covenant/runtime";
import type { ConsoleConfig } from "./config.ts";

const rememberMs = 5_000;
const jobsMax = 50;

/** A function that returns the https address of a running validator, or undefined while none runs. */
export function findValidator(config: ConsoleConfig): () => Promise<string | undefined> {
  const scheduler = createClient(Scheduler, {
    url: config.services.scheduler,
    caFile: config.tls.caFile,
    tls: config.tls,
  });
  let known: { url: string; untilMs: number } | undefined;
  return async () => {
    if (known && performance.now() < known.untilMs) return known.url;
    const { jobs } = await scheduler.listJobs({ pageSize: jobsMax });
    const task = jobs
      .flatMap((job) => job.tasks.map((entry) => ({ entry, spec: job.spec })))
      .find(
        ({ entry, spec }) =>
          entry.state === TaskState.RUNNING &&
          entry.endpoint !== "" &&
          spec?.tasks.some(
            ({ name, workload }) => name === entry.name && workload === "gauntlet-validator",
          ),
      );
    known = task
      ? { url: `https://${task.entry.endpoint}`, untilMs: performance.now() + rememberMs }
      : undefined;
    return known?.url;
  };
}
