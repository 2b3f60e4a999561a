// covenant.grail.v1.Rollouts: where workers get contracts and hand groups in.
import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { fromHex } from "@covenant/contracts";
import {
  CommitGroupResponseSchema,
  GetContractResponseSchema,
  GetVerdictResponseSchema,
  type Rollouts,
  SubmitGroupsResponseSchema,
  WatchPolicyResponseSchema,
} from "@covenant/contracts/grail";
import { CovenantError, principalOf } from "@covenant/runtime";
import type { Desk } from "../desk/desk.ts";
import type { Registrations } from "../desk/registrations.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import { isOver } from "../state/job.ts";
import type { SignalBox } from "../state/signal-box.ts";
import type { Store } from "../state/store.ts";

const capacityMax = 64;
/** Groups of one SubmitGroups stream. */
const groupsPerStreamMax = 64;
/** Leaves a caller's deadline enough time for the answer. */
const verdictMarginMs = 500;
const verdictWaitMs = 25_000;

/** Collaborators of the handlers. */
export interface RolloutModules {
  desk: Desk;
  pipeline: Pipeline;
  store: Store;
  registrations: Registrations;
  changes: SignalBox;
}

async function workerOf(context: HandlerContext, registrations: Registrations): Promise<string> {
  const { hotkey } = principalOf(context);
  if (hotkey === undefined) {
    throw new CovenantError("COV_PERMISSION_DENIED", "Rollouts are handed to hotkeys only.");
  }
  await registrations.require(hotkey);
  return hotkey;
}

/** Handlers of the service. */
export function rolloutsHandlers(
  options: { retryAfterMs: number },
  modules: RolloutModules,
): ServiceImpl<typeof Rollouts> {
  const { desk, pipeline, store, registrations, changes } = modules;
  return {
    async getContract(request, context) {
      const hotkey = await workerOf(context, registrations);
      const { job } = pipeline;
      if (job !== undefined && isOver(job)) {
        return create(GetContractResponseSchema, { finished: true });
      }
      const idle = create(GetContractResponseSchema, { retryAfterMs: options.retryAfterMs });
      if (job === undefined || request.capacity === 0) return idle;
      // Who delivered something false last gets one group to show better, not many to spoil.
      const probation = await store.isOnProbation(job.jobId, hotkey);
      const capacity = probation ? 1 : Math.min(request.capacity, capacityMax);
      const work = await desk.take(hotkey, capacity);
      if (work === undefined || work.assignments.length === 0) return idle;
      return create(GetContractResponseSchema, work);
    },

    async commitGroup(request, context) {
      const hotkey = await workerOf(context, registrations);
      const challengeBlock = await desk.commit(hotkey, request);
      return create(CommitGroupResponseSchema, { challengeBlock: BigInt(challengeBlock) });
    },

    async submitGroups(requests, context) {
      const hotkey = await workerOf(context, registrations);
      let groups = 0;
      for await (const request of requests) {
        if (groups === groupsPerStreamMax) {
          throw new CovenantError("COV_GROUP_TOO_LARGE", "A stream has too many groups.", {
            metadata: { groupsMax: groupsPerStreamMax },
          });
        }
        await desk.submit(hotkey, request);
        groups++;
      }
      return create(SubmitGroupsResponseSchema, { acceptedForVerification: groups });
    },

    async getVerdict(request, context) {
      const { hotkey } = principalOf(context);
      const waitMs = Math.min(verdictWaitMs, (context.timeoutMs() ?? Infinity) - verdictMarginMs);
      const deadline = AbortSignal.timeout(Math.max(0, waitMs));
      const signal = AbortSignal.any([context.signal, deadline]);
      const verdict = await desk.verdict(hotkey, request.groupId, signal);
      return create(GetVerdictResponseSchema, { verdict });
    },

    async *watchPolicy(request, context) {
      let last = request.afterVersion;
      let lastRoot = "";
      while (!context.signal.aborted) {
        const since = changes.version;
        const { job } = pipeline;
        const isNew =
          job !== undefined &&
          job.policyRoot !== "" &&
          job.policyRoot !== lastRoot &&
          (job.policyVersion > last || request.afterVersion === 0);
        if (isNew) {
          last = job.policyVersion;
          lastRoot = job.policyRoot;
          yield create(WatchPolicyResponseSchema, {
            policyVersion: job.policyVersion,
            checkpointRoot: fromHex(job.policyRoot),
          });
        }
        if (job !== undefined && isOver(job)) return;
        await changes.changed(since, context.signal);
      }
    },
  };
}
