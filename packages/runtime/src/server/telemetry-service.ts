/** The Telemetry service: the spans that this process keeps. */
import type { ConnectRouter } from "@connectrpc/connect";
import { Telemetry } from "@covenant/contracts/common";
import { CovenantError } from "../errors/covenant-error.ts";
import type { SpanStore, StoredSpan } from "../telemetry/span-store.ts";

const PAGE_SIZE_MAX = 200;

/** Adds the service to a router. */
export function registerTelemetry(router: ConnectRouter, service: string, spans: SpanStore): void {
  const toMessage = ({ isLocalRoot: _, sequence: __, ...span }: StoredSpan) => ({
    ...span,
    service,
  });
  router.service(Telemetry, {
    getTrace: ({ traceId }) => ({ spans: spans.byTrace(traceId).map(toMessage) }),
    listTraces: ({ pageSize, pageToken }) => {
      const limit = Math.min(pageSize || PAGE_SIZE_MAX, PAGE_SIZE_MAX);
      const roots = spans.roots(limit + 1, parseToken(pageToken));
      const page = roots.slice(0, limit);
      const nextPageToken = roots.length > limit ? String(page.at(-1)!.sequence) : "";
      return { roots: page.map(toMessage), nextPageToken };
    },
  });
}

function parseToken(token: string): number | undefined {
  if (token === "") return undefined;
  if (/^\d{1,15}$/.test(token)) return Number(token);
  throw new CovenantError("COV_INVALID_ARGUMENT", "page_token: not one of this list", {
    metadata: { field: "page_token" },
  });
}
