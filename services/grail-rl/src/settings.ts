// What can be set about learning and rollouts, with defaults for the demonstration's small model.
import { z } from "zod";

const count = (fallback: number, maximum: number) =>
  z.number().int().min(1).max(maximum).default(fallback);

/** Supervised tuning. */
export const supervisedSchema = z
  .strictObject({
    /** Worked examples in a batch. */
    batchExamples: count(64, 4096),
    /** Every so many steps one step is on text the model wrote before tuning; 0 for none. */
    replayEverySteps: z.number().int().min(0).max(10_000).default(5),
    replaySequences: count(32, 4096),
    replayTokens: count(64, 4096),
    learningRate: z.number().positive().max(1).default(1e-3),
    warmupSteps: count(20, 100_000),
    maximumSteps: count(1000, 1_000_000),
    /** A probe every so many steps: mean reward on training episodes; state is saved with it. */
    probeEverySteps: count(20, 100_000),
    probePrompts: count(256, 1000),
    /**
     * Tuning stops at this probe reward: reinforcement learns from groups that hold both successes and
     * failures, and a policy that is right every other time gives the most of them.
     */
    targetReward: z.number().min(0).max(1).default(0.65),
  })
  .prefault({});

/** Reinforcement: GRPO on verified groups. */
export const policySchema = z
  .strictObject({
    /** `grpo` divides advantages by the group's deviation, `dr_grpo` does not. */
    rule: z.enum(["grpo", "dr_grpo"]).default("grpo"),
    /** Policy versions to train. */
    versions: z.number().int().min(0).max(1_000_000).default(70),
    groupsPerVersion: count(64, 4096),
    /** Completions of a group. */
    groupSize: z.number().int().min(2).max(64).default(4),
    /** Groups to learn from, by descending frontier value. */
    trainGroupsMax: count(64, 4096),
    maxNewTokens: count(6, 4096),
    clipLow: z.number().positive().max(1).default(0.2),
    clipHigh: z.number().positive().max(10).default(0.28),
    klCoefficient: z.number().min(0).max(10).default(0.01),
    learningRate: z.number().positive().max(1).default(3e-4),
    /** Versions over which the learning rate rises to its full value. */
    warmupVersions: z.number().int().min(0).max(1_000_000).default(4),
    /** Learning rate of the last version, as a share of the first one's; linear between. */
    finalLearningRateRatio: z.number().min(0).max(1).default(0.1),
    /** Passes over the groups of a version. */
    epochs: count(2, 100),
    /** Completions of one optimiser step. */
    batchCompletions: count(64, 65_536),
    /** Prompts of the evaluation before and after. */
    evaluationPrompts: count(512, 1000),
  })
  .prefault({});

/** How rollouts are handed out and when they are late, in ledger blocks. */
export const rolloutsSchema = z
  .strictObject({
    /** From contract to its deadline; then a new contract with a new beacon replaces it. */
    contractBlocks: count(600, 1_000_000),
    /** From assignment to commitment. */
    generateBlocks: count(60, 1_000_000),
    /** From challenge to openings. */
    openBlocks: count(60, 1_000_000),
    /** Groups that one worker may have in work. */
    outstandingMax: count(32, 64),
    /** When a worker without work is to ask again. */
    retryAfterMs: count(200, 60_000),
    /** Groups verified in one replay. */
    verifyBatchGroups: count(64, 4096),
    /** Below this many accepted groups with variance a version is not trained on. */
    minimumGroups: count(1, 4096),
  })
  .prefault({});

/** Settings of supervised tuning. */
export type SupervisedOptions = z.infer<typeof supervisedSchema>;
/** Settings of reinforcement. */
export type PolicyOptions = z.infer<typeof policySchema>;
/** Settings of rollouts. */
export type RolloutOptions = z.infer<typeof rolloutsSchema>;
