// covenant.grail.v1.PostTraining: starts jobs, tells how they go, evaluates checkpoints.
import { rm } from "node:fs/promises";
import path from "node:path";
import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { toHex } from "@covenant/contracts";
import {
  EvaluateResponseSchema,
  type PostTraining,
  StartPostTrainingResponseSchema,
  WatchPostTrainingResponseSchema,
} from "@covenant/contracts/grail";
import { type DeviceOptions, openModel, Tokenizer } from "@covenant/models";
import { CovenantError, type Logger } from "@covenant/runtime";
import { evaluate } from "../learn/evaluate.ts";
import { environmentOf, type RegistryClient } from "../pipeline/context.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import { receiveModel } from "../pipeline/receive.ts";
import { isOver, statusOf } from "../state/job.ts";
import { Serial, type SignalBox } from "../state/signal-box.ts";
import type { Store } from "../state/store.ts";

const promptsMax = 1000;
const keyLengthMax = 128;
/** Run ids name folders and contracts. */
const runIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Settings that the handlers read. */
export interface PostTrainingOptions {
  dataDirectory: string;
  device: DeviceOptions;
  maxNewTokens: number;
  limits: { supervisedSteps: number; versions: number };
}

/** Collaborators of the handlers. */
export interface PostTrainingModules {
  pipeline: Pipeline;
  store: Store;
  registry: RegistryClient;
  changes: SignalBox;
  logger: Logger;
}

function invalid(message: string): CovenantError {
  return new CovenantError("COV_INVALID_ARGUMENT", message);
}

/** Handlers of the service. */
export function postTrainingHandlers(
  options: PostTrainingOptions,
  modules: PostTrainingModules,
): ServiceImpl<typeof PostTraining> {
  const { pipeline, store, registry, changes, logger } = modules;
  const evaluations = new Serial();
  return {
    async startPostTraining(request) {
      const { idempotencyKey, runId, checkpointRoot } = request;
      if (idempotencyKey === "" || idempotencyKey.length > keyLengthMax) {
        throw invalid(`idempotency_key must have 1 to ${keyLengthMax} characters.`);
      }
      if (!runIdPattern.test(runId)) {
        throw invalid("run_id must be 1 to 64 letters, digits, dots, dashes or underscores.");
      }
      if (checkpointRoot.length !== 0 && checkpointRoot.length !== 32) {
        throw invalid("checkpoint_root must be 32 bytes, or empty for the run's final checkpoint.");
      }
      const requestedRoot = toHex(checkpointRoot);
      const job = await pipeline.start({ idempotencyKey, runId, requestedRoot });
      return create(StartPostTrainingResponseSchema, { jobId: job.jobId });
    },

    async *watchPostTraining(request, context) {
      while (true) {
        const since = changes.version;
        const current = pipeline.job;
        const job =
          current?.jobId === request.jobId || request.jobId === ""
            ? current
            : await store.findJob({ jobId: request.jobId });
        if (job === undefined) {
          throw new CovenantError("COV_POST_TRAINING_UNKNOWN", `There is no job ${request.jobId}.`);
        }
        const tally = await store.tally(job.jobId);
        yield create(WatchPostTrainingResponseSchema, {
          status: statusOf(job, tally, options.limits),
        });
        if (isOver(job) || context.signal.aborted) return;
        await changes.changed(since, context.signal);
      }
    },

    async evaluate(request, context) {
      if (request.checkpointRoot.length !== 32) throw invalid("checkpoint_root must be 32 bytes.");
      if (request.prompts < 1 || request.prompts > promptsMax) {
        throw invalid(`prompts must be 1 to ${promptsMax}.`);
      }
      const environment = environmentOf(request.environment);
      const name = toHex(request.checkpointRoot);
      const directory = path.join(options.dataDirectory, "evaluations", name);
      // One at a time: each holds a model.
      return evaluations.run(async () => {
        context.signal.throwIfAborted();
        const checkpoint = await receiveModel(
          registry,
          request.checkpointRoot,
          directory,
          context.signal,
        );
        const { shape, parameters } = checkpoint;
        const model = await openModel(shape, options.device, { logger, parameters });
        try {
          const result = await evaluate(
            model,
            Tokenizer.fromFiles(checkpoint.tokenizerFiles),
            environment,
            {
              prompts: request.prompts,
              seed: request.seed,
              heldOut: true,
              temperature: 1,
              maxNewTokens: options.maxNewTokens,
              signal: context.signal,
            },
          );
          return create(EvaluateResponseSchema, {
            meanReward: result.meanReward,
            standardError: result.standardError,
            prompts: result.prompts,
          });
        } finally {
          model.close();
          await rm(directory, { recursive: true, force: true });
        }
      });
    },
  };
}
