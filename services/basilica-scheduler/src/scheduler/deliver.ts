import { create } from "@bufbuild/protobuf";
import { StartTaskSchema, StopTaskSchema } from "@covenant/contracts/basilica";
import type { JobEffect } from "./control-loop.ts";
import { fromTaskSpec } from "./convert.ts";
import type { Sessions } from "./sessions.ts";
import type { SchedulerState } from "./state.ts";

/**
 * Tells a node about an effect. A node that is away misses it and is brought in line when it
 * greets again, so nothing is kept for it.
 */
export function deliver(effect: JobEffect, state: SchedulerState, sessions: Sessions): void {
  const session = sessions.get(effect.nodeId);
  if (session === undefined) return;
  const { jobId, task, attempt } = effect;
  if (effect.type === "stop") {
    const { graceSeconds } = effect;
    session.send({
      case: "stop",
      value: create(StopTaskSchema, { jobId, task, attempt, graceSeconds }),
    });
    return;
  }
  const spec = state.jobs.get(jobId)?.record.spec.tasks.find((entry) => entry.name === task);
  if (spec === undefined) return;
  const value = create(StartTaskSchema, { jobId, attempt, spec: fromTaskSpec(spec) });
  session.send({ case: "start", value });
}
