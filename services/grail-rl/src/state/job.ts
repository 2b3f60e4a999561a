// One run of post-training, as it is kept on disk.
import { create } from "@bufbuild/protobuf";
import { fromHex } from "@covenant/contracts";
import {
  HandoffReportSchema,
  PostTrainingPhase,
  type PostTrainingStatus,
  PostTrainingStatusSchema,
} from "@covenant/contracts/grail";
import type { Tally } from "./tallies.ts";

/** Phases in their order; `failed` may follow any. */
export type PhaseName =
  | "waiting_for_checkpoint"
  | "receiving"
  | "sft"
  | "evaluating"
  | "grpo"
  | "releasing"
  | "finished"
  | "failed";

/** How the checkpoint came in. */
export interface Handoff {
  bytes: number;
  seconds: number;
  chunks: number;
  resumedChunks: number;
}

/** Everything about a job that a restart must know; roots in hexadecimal, "" where there is none yet. */
export interface Job {
  jobId: string;
  idempotencyKey: string;
  runId: string;
  phase: PhaseName;
  /** Why the job failed; otherwise empty. */
  reason: string;
  /** Root asked for; "" means the run's final pre-training checkpoint. */
  requestedRoot: string;
  sourceRoot: string;
  handoff: Handoff;
  supervisedSteps: number;
  supervisedLossBefore: number;
  supervisedLossAfter: number;
  rewardBefore: number;
  rewardAfter: number;
  policyVersion: number;
  policyRoot: string;
  releaseRoot: string;
  /** Contracts issued for the present version. */
  contractAttempt: number;
  loss: number;
  stepReward: number;
  kl: number;
  entropy: number;
  clipShare: number;
}

/** A job that has just been asked for. */
export function newJob(
  request: Pick<Job, "jobId" | "idempotencyKey" | "runId" | "requestedRoot">,
): Job {
  return {
    ...request,
    phase: "waiting_for_checkpoint",
    reason: "",
    sourceRoot: "",
    handoff: { bytes: 0, seconds: 0, chunks: 0, resumedChunks: 0 },
    supervisedSteps: 0,
    supervisedLossBefore: 0,
    supervisedLossAfter: 0,
    rewardBefore: 0,
    rewardAfter: 0,
    policyVersion: 0,
    policyRoot: "",
    releaseRoot: "",
    contractAttempt: 0,
    loss: 0,
    stepReward: 0,
    kl: 0,
    entropy: 0,
    clipShare: 0,
  };
}

const phases: Record<PhaseName, PostTrainingPhase> = {
  waiting_for_checkpoint: PostTrainingPhase.WAITING_FOR_CHECKPOINT,
  receiving: PostTrainingPhase.RECEIVING,
  sft: PostTrainingPhase.SFT,
  evaluating: PostTrainingPhase.EVALUATING,
  grpo: PostTrainingPhase.GRPO,
  releasing: PostTrainingPhase.RELEASING,
  finished: PostTrainingPhase.FINISHED,
  failed: PostTrainingPhase.FAILED,
};

/** Whether nothing more will happen to the job. */
export function isOver(job: Job): boolean {
  return job.phase === "finished" || job.phase === "failed";
}

/** Present step and number of steps of the phase that the job is in. */
function stepsOf(job: Job, limits: { supervisedSteps: number; versions: number }) {
  if (job.phase === "sft") return { step: job.supervisedSteps, totalSteps: limits.supervisedSteps };
  return { step: job.policyVersion, totalSteps: limits.versions };
}

/** The job as the outside sees it. */
export function statusOf(
  job: Job,
  tally: Tally,
  limits: { supervisedSteps: number; versions: number },
): PostTrainingStatus {
  return create(PostTrainingStatusSchema, {
    phase: phases[job.phase],
    reason: job.reason,
    ...stepsOf(job, limits),
    loss: job.loss,
    handoff: create(HandoffReportSchema, {
      root: fromHex(job.sourceRoot),
      bytes: BigInt(job.handoff.bytes),
      seconds: job.handoff.seconds,
      chunks: job.handoff.chunks,
      resumedChunks: job.handoff.resumedChunks,
    }),
    sftLossBefore: job.supervisedLossBefore,
    sftLossAfter: job.supervisedLossAfter,
    rewardBefore: job.rewardBefore,
    rewardAfter: job.rewardAfter,
    stepReward: job.stepReward,
    policyVersion: job.policyVersion,
    policyRoot: fromHex(job.policyRoot),
    releaseRoot: fromHex(job.releaseRoot),
    kl: job.kl,
    entropy: job.entropy,
    clipShare: job.clipShare,
    groupsAccepted: tally.accepted,
    groupsRejected: tally.rejected,
    workers: tally.workers,
  });
}
