/** OTLP export, only when the standard variables ask for it; the exporter is not even loaded else. */
import type { SpanProcessor } from "@opentelemetry/sdk-trace-base";
import { BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";

/** A processor that sends spans to OTEL_EXPORTER_OTLP_ENDPOINT, or undefined when that is unset. */
export async function exporterFromEnvironment(
  env: Record<string, string | undefined>,
): Promise<SpanProcessor | undefined> {
  const endpoint = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? env.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!endpoint || env.OTEL_TRACES_EXPORTER === "none") return undefined;
  const { OTLPTraceExporter } = await import("@opentelemetry/exporter-trace-otlp-http");
  // The exporter reads endpoint, headers and timeout from the same variables itself.
  return new BatchSpanProcessor(new OTLPTraceExporter());
}
