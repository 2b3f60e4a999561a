import type { ServiceImpl } from "@connectrpc/connect";
import type { Billing } from "@covenant/contracts/basilica";
import type { JobBoard } from "../scheduler/job-board.ts";

/** Handlers of basilica.v1.Billing. */
export function billingService({ board }: { board: JobBoard }): ServiceImpl<typeof Billing> {
  return {
    getUsage(request) {
      const rows = board.usage(request.jobId).map((row) => ({
        jobId: row.jobId,
        task: row.task,
        nodeId: row.nodeId,
        cpuMicros: BigInt(row.cpuMicros),
        wallMillis: BigInt(row.wallMillis),
        peakRssBytes: BigInt(row.peakRssBytes),
        sampleCount: BigInt(row.sampleCount),
      }));
      return { rows };
    },
  };
}
