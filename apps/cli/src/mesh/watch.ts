// Follows the services' streams and keeps the show's state in step. A stream that breaks is opened again: services
// restart, and the show goes on.
import { type Job, JobState, TaskState } from "@covenant/contracts/basilica";
import { type Round, RoundState, VerdictReason } from "@covenant/contracts/gauntlet";
import { PostTrainingPhase } from "@covenant/contracts/grail";
import type { Clock } from "@covenant/runtime";
import {
  addEvent,
  closedRounds,
  onRound,
  onScores,
  type ShowState,
  verdictWords,
} from "../show/state.ts";
import type { OperatorClients } from "./clients.ts";

const reconnectMs = 500;
const scoresEveryMs = 1_000;

/** Everything the watchers need; they end when `signal` is aborted. */
export interface WatchContext {
  clients: OperatorClients;
  state: ShowState;
  clock: Clock;
  signal: AbortSignal;
  jobs: Map<string, Job>;
  /** Rounds that the show has told of. */
  toldRounds: Set<number>;
  postTrainingJobId: () => string | undefined;
}

async function keepOpen(context: WatchContext, attempt: () => Promise<void>): Promise<void> {
  while (!context.signal.aborted) {
    try {
      await attempt();
    } catch {
      // Services restart; what stays broken is shown by the supervisor and by the scheduler's reasons.
    }
    await context.clock.sleep(reconnectMs, context.signal).catch(() => {});
  }
}

/** Starts all watchers; the returned promise settles when they have ended. */
export function watchEverything(context: WatchContext): Promise<unknown> {
  return Promise.all([
    keepOpen(context, () => watchJobs(context)),
    keepOpen(context, () => watchRounds(context)),
    keepOpen(context, () => pollScores(context)),
    keepOpen(context, () => watchPostTraining(context)),
  ]);
}

/** Endpoint of the running task of a workload, from what the scheduler last said. */
export function endpointOf(context: WatchContext, workload: string): string | undefined {
  for (const job of context.jobs.values()) {
    const names = job.spec?.tasks
      .filter((task) => task.workload === workload)
      .map(({ name }) => name);
    const task = job.tasks.find(
      ({ name, state, endpoint }) =>
        names?.includes(name) && state === TaskState.RUNNING && endpoint !== "",
    );
    if (task) return task.endpoint;
  }
  return undefined;
}

async function watchJobs(context: WatchContext): Promise<void> {
  for await (const { job } of context.clients.scheduler.watchJobs({}, { signal: context.signal })) {
    if (!job) continue;
    tellTaskChanges(context, context.jobs.get(job.id), job);
    context.jobs.set(job.id, job);
  }
}

function tellTaskChanges(context: WatchContext, before: Job | undefined, after: Job): void {
  for (const task of after.tasks) {
    const previous = before?.tasks.find(({ name }) => name === task.name);
    if (task.restarts > (previous?.restarts ?? 0)) {
      addEvent(context.state, `${task.name} is restarted: ${task.reason}`);
    }
  }
  if (after.state === JobState.FAILED && before?.state !== JobState.FAILED) {
    addEvent(context.state, `Job ${after.spec?.name} failed: ${after.reason}`);
  }
}

async function watchRounds(context: WatchContext): Promise<void> {
  const endpoint = endpointOf(context, "gauntlet-validator");
  if (!endpoint) return;
  const validator = context.clients.validatorAt(endpoint);
  const { state } = context;
  for await (const { round } of validator.watchRounds(
    { fromRound: 0 },
    { signal: context.signal },
  )) {
    if (!round) continue;
    onRound(state, round);
    for (const closed of closedRounds(state)) {
      // The loss is measured after the round is signed; a later round means that it will not come.
      const complete = closed.heldOutBitsPerByte > 0 || closed.round < round.round;
      if (!complete || context.toldRounds.has(closed.round)) continue;
      context.toldRounds.add(closed.round);
      tellRound(state, closed);
    }
  }
}

function tellRound(state: ShowState, round: Round): void {
  const refused = round.verdicts
    .filter((verdict) => verdict.reason !== VerdictReason.ACCEPTED)
    .map((verdict) => {
      const name = state.peers.find(({ hotkey }) => hotkey === verdict.hotkey)?.name;
      return `${name ?? verdict.hotkey}: ${verdictWords(verdict.reason)}`;
    });
  const loss =
    round.heldOutBitsPerByte > 0 ? `, ${round.heldOutBitsPerByte.toFixed(3)} bits per byte` : "";
  const count = round.signedManifest?.manifest?.contributors.length ?? 0;
  const words = refused.length > 0 ? ` (refused ${refused.join(", ")})` : "";
  addEvent(state, `Round ${round.round}: ${count} updates merged${loss}${words}`);
}

async function pollScores(context: WatchContext): Promise<void> {
  const endpoint = endpointOf(context, "gauntlet-validator");
  if (!endpoint) return;
  const validator = context.clients.validatorAt(endpoint);
  while (!context.signal.aborted) {
    const { scores } = await validator.getScorecard({}, { signal: context.signal });
    onScores(context.state, scores);
    await context.clock.sleep(scoresEveryMs, context.signal);
  }
}

async function watchPostTraining(context: WatchContext): Promise<void> {
  const jobId = context.postTrainingJobId();
  if (!jobId) return;
  const stream = context.clients.postTraining.watchPostTraining(
    { jobId },
    { signal: context.signal },
  );
  for await (const { status } of stream) {
    if (!status) continue;
    const before = context.state.postTraining;
    context.state.postTraining = status;
    if (status.phase !== before?.phase && status.reason) addEvent(context.state, status.reason);
    if (status.step > (before?.step ?? 0) && status.phase === PostTrainingPhase.GRPO) {
      addEvent(
        context.state,
        `GRPO step ${status.step}: mean reward ${status.stepReward.toFixed(3)}, policy version ${status.policyVersion}`,
      );
    }
  }
}

/** True when the last round is signed and every one of its contributors has applied it. */
export function pretrainingFinished(state: ShowState): boolean {
  const closed = closedRounds(state);
  if (closed.length < state.roundsPlanned) return false;
  const last = closed.at(-1);
  if (!last || last.state < RoundState.APPLIED) return false;
  const applied = Object.keys(last.appliedRoots);
  const contributors = last.signedManifest?.manifest?.contributors ?? [];
  return contributors.every(({ hotkey }) => applied.includes(hotkey));
}
