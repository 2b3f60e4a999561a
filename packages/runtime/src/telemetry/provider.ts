/**
 * Starts tracing for the process. OTEL_SDK_DISABLED=true leaves OpenTelemetry's no-op in place, which
 * costs nothing. OTEL_EXPORTER_OTLP_ENDPOINT adds an exporter; the local store is there without it.
 */
import { context, propagation, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { resourceFromAttributes } from "@opentelemetry/resources";
import type { SpanProcessor } from "@opentelemetry/sdk-trace-base";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";
import { exporterFromEnvironment } from "./exporter.ts";
import { SpanStore } from "./span-store.ts";

/** Tracing of a process. */
export interface Telemetry {
  /** Latest spans; empty when tracing is off. */
  spans: SpanStore;
  /** Sends what is buffered; bounded by the exporter's own timeout. */
  shutdown(): Promise<void>;
}

let active = new SpanStore({ capacity: 1 });

/** The span store of the process; an empty one before `startTelemetry` or when tracing is off. */
export function activeSpans(): SpanStore {
  return active;
}

/** Starts tracing under a service name. Call once a process; later calls replace the earlier. */
export async function startTelemetry(
  service: string,
  env: Record<string, string | undefined> = process.env,
): Promise<Telemetry> {
  const spans = new SpanStore();
  active = spans;
  if (env.OTEL_SDK_DISABLED === "true") return { spans, shutdown: async () => undefined };
  const processors: SpanProcessor[] = [spans];
  const exporter = await exporterFromEnvironment(env);
  if (exporter) processors.push(exporter);
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ "service.name": service, "service.version": "0.1.0" }),
    spanProcessors: processors,
  });
  stopGlobals();
  trace.setGlobalTracerProvider(provider);
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  return {
    spans,
    shutdown: async () => {
      await provider.shutdown();
      stopGlobals();
    },
  };
}

function stopGlobals(): void {
  trace.disable();
  context.disable();
  propagation.disable();
}
