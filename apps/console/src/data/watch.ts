// Keeps the store in step with the services: one stream each, reopened when it breaks.
import { Code, ConnectError } from "@connectrpc/connect";
import { batch } from "@preact/signals";
import { postTraining, registry, scheduler, validator } from "./clients.ts";
import { checkpoints, connected, jobs, post, rounds, run, scores } from "./store.ts";

const reconnectMinMs = 500;
const reconnectMaxMs = 10_000;
const scoresEveryMs = 2_000;

function mark(name: string, isConnected: boolean) {
  if (connected.value.get(name) === isConnected) return;
  connected.value = new Map(connected.value).set(name, isConnected);
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs `attempt` for ever; a stream that ends or fails is opened again, later and later. */
async function keep(name: string, attempt: (alive: () => void) => Promise<void>): Promise<never> {
  let delayMs = reconnectMinMs;
  for (;;) {
    try {
      await attempt(() => {
        delayMs = reconnectMinMs;
        mark(name, true);
      });
      // A stream that ends in order (a job that is over, say) has said all; its service is still there.
    } catch (error) {
      // The header shows what is not connected; the next attempt follows. "Not yet" is an answer too.
      mark(name, ConnectError.from(error).code === Code.NotFound);
    }
    await sleep(delayMs);
    delayMs = Math.min(reconnectMaxMs, delayMs * 2);
  }
}

async function watchRounds(alive: () => void) {
  const { run: config } = await validator.getRun({});
  run.value = config;
  for await (const { round } of validator.watchRounds({ fromRound: 0 })) {
    alive();
    if (round) rounds.value = new Map(rounds.value).set(round.round, round);
  }
}

async function pollScores(alive: () => void) {
  for (;;) {
    const card = await validator.getScorecard({});
    alive();
    scores.value = [...card.scores].sort((a, b) => b.weightShare - a.weightShare);
    await sleep(scoresEveryMs);
  }
}

async function watchCheckpoints(alive: () => void) {
  const afterSequence = checkpoints.value.at(-1)?.sequence ?? 0n;
  alive();
  for await (const seen of registry.watchCheckpoints({ afterSequence })) {
    checkpoints.value = [...checkpoints.value, seen];
  }
}

async function watchPostTraining(alive: () => void) {
  for await (const { status } of postTraining.watchPostTraining({})) {
    alive();
    post.value = status;
  }
}

async function watchJobs(alive: () => void) {
  alive();
  for await (const { job } of scheduler.watchJobs({})) {
    if (!job) continue;
    batch(() => {
      jobs.value = new Map(jobs.value).set(job.id, job);
    });
  }
}

/** Opens all streams; they live as long as the page. */
export function watchMesh(): void {
  void keep("gauntlet-validator", watchRounds);
  void keep("scores", pollScores);
  void keep("checkpoint-registry", watchCheckpoints);
  void keep("grail-rl", watchPostTraining);
  void keep("basilica-scheduler", watchJobs);
}
