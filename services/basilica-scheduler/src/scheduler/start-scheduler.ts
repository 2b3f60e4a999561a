import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { defaultJobPolicy, isFinalJob } from "@covenant/marketplace";
import type { Clock, Logger } from "@covenant/runtime";
import { openDatabase } from "@covenant/runtime";
import type { SchedulerConfig } from "../config.ts";
import { ControlLoop } from "./control-loop.ts";
import { deliver } from "./deliver.ts";
import { JobBoard } from "./job-board.ts";
import { LogStore } from "./log-store.ts";
import { Sessions } from "./sessions.ts";
import type { SchedulerDatabase } from "./store.ts";
import { deleteJobs, loadState, migrations, storeDraft } from "./store.ts";

const pruneMs = 60_000;
/** Changes that may wait for the loop. */
const queueMax = 10_000;

/** The scheduler without its network side. */
export interface SchedulerCore {
  readonly board: JobBoard;
  readonly loop: ControlLoop;
  readonly sessions: Sessions;
  readonly logs: LogStore;
  stop(): Promise<void>;
}

/** Opens the stored state and begins to apply deadlines. */
export async function startScheduler(
  config: SchedulerConfig,
  { clock, logger }: { clock: Clock; logger: Logger },
): Promise<SchedulerCore> {
  mkdirSync(config.dataDirectory, { recursive: true });
  const path = join(config.dataDirectory, "scheduler.sqlite");
  const database = openDatabase<SchedulerDatabase>({ path, migrations });
  const state = await loadState(database);
  const sessions = new Sessions();
  const logs = new LogStore({
    root: join(config.dataDirectory, "logs"),
    fileBytesMax: config.logFileBytes,
  });
  const loop: ControlLoop = new ControlLoop(
    {
      policy: { ...defaultJobPolicy, ...config.restarts },
      nodeLostAfterMs: config.nodeLostAfterMs,
      tickMs: config.tickMs,
      queueMax,
    },
    {
      state,
      store: (draft) => storeDraft(database, draft),
      deliver: (effect) => deliver(effect, state, sessions),
      changed: (job) => {
        logger.info({ jobId: job.id, state: job.state, reason: job.reason }, "job changed");
        board.changed(job);
      },
      clock,
      logger,
    },
  );
  const board = new JobBoard({ state, loop });
  const prune = async (): Promise<void> => {
    const ended = board.records().filter((job) => isFinalJob(job.state));
    const old = ended.slice(config.endedJobsMax).map((job) => job.id);
    await deleteJobs(database, old);
    for (const id of old) {
      state.jobs.delete(id);
      logs.remove(id);
    }
  };
  const pruning = setInterval(() => {
    prune().catch((error) => logger.error({ error }, "old jobs could not be deleted"));
  }, pruneMs);
  loop.start();
  return {
    board,
    loop,
    sessions,
    logs,
    async stop() {
      clearInterval(pruning);
      sessions.closeAll();
      await loop.stop();
      await database.destroy();
    },
  };
}
