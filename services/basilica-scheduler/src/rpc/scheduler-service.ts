import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { canonicalBytes, sha256, toHex } from "@covenant/contracts";
import type { Scheduler, SubmitJobRequest } from "@covenant/contracts/basilica";
import { JobSpecSchema } from "@covenant/contracts/basilica";
import { CovenantError, principalOf } from "@covenant/runtime";
import { toJobSpec } from "../scheduler/convert.ts";
import type { JobBoard } from "../scheduler/job-board.ts";
import type { LogStore } from "../scheduler/log-store.ts";
import { tailLinesMax } from "../scheduler/log-store.ts";
import { nextPageToken, readPage } from "./paging.ts";

const idempotencyKeyLengthMax = 128;

interface Modules {
  readonly board: JobBoard;
  readonly logs: LogStore;
}

/** Handlers of basilica.v1.Scheduler. */
export function schedulerService({ board, logs }: Modules): ServiceImpl<typeof Scheduler> {
  return {
    async submitJob(request, context) {
      return { job: await board.submit(readSubmission(request, context)) };
    },
    async cancelJob(request, context) {
      const by = callerName(context);
      const reason = request.reason === "" ? `cancelled by ${by}` : request.reason.slice(0, 500);
      return { job: await board.cancel(request.jobId, reason) };
    },
    getJob: (request) => ({ job: board.get(request.jobId) }),
    listJobs(request) {
      const page = readPage(request);
      const { jobs, more } = board.list(page.offset, page.count);
      return { jobs, nextPageToken: nextPageToken(page, more) };
    },
    async *watchJobs(request, context) {
      for await (const job of board.watch(request.jobId, context.signal)) yield { job };
    },
    async *streamLogs(request, context) {
      const { jobId, task } = request;
      if (!board.hasTask(jobId, task)) {
        throw new CovenantError("COV_NOT_FOUND", `job "${jobId}" has no task "${task}"`);
      }
      const count = Math.min(request.tailLines === 0 ? 100 : request.tailLines, tailLinesMax);
      const isOver = (): boolean => board.isOver(jobId);
      // The follower is there before the tail is sent, so that no line falls between the two.
      const following = request.follow
        ? logs.follow(jobId, task, context.signal, isOver)
        : undefined;
      const first = following?.next();
      for (const line of logs.tail(jobId, task, count)) yield { line };
      if (following === undefined || first === undefined) return;
      for (let batch = await first; !batch.done; batch = await following.next()) {
        for (const line of batch.value) yield { line };
      }
    },
    listNodes(request) {
      const page = readPage(request);
      const { nodes, more } = board.nodes(page.offset, page.count);
      return { nodes, nextPageToken: nextPageToken(page, more) };
    },
  };
}

function readSubmission(request: SubmitJobRequest, context: HandlerContext) {
  const { idempotencyKey, spec } = request;
  if (idempotencyKey.length === 0 || idempotencyKey.length > idempotencyKeyLengthMax) {
    const rule = `1 to ${idempotencyKeyLengthMax} characters`;
    throw new CovenantError("COV_INVALID_ARGUMENT", `idempotencyKey must have ${rule}`);
  }
  if (spec === undefined) throw new CovenantError("COV_INVALID_ARGUMENT", "spec is missing");
  const specHash = toHex(sha256(canonicalBytes(JobSpecSchema, spec)));
  return { idempotencyKey, spec: toJobSpec(spec), specHash, owner: callerName(context) };
}

function callerName(context: HandlerContext): string {
  const { service, hotkey } = principalOf(context);
  return service ?? hotkey ?? "anyone";
}
