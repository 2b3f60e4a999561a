/** Spans around pieces of work. */
import type { Attributes, Span } from "@opentelemetry/api";
import { context, isValidTraceId, SpanStatusCode, TraceFlags, trace } from "@opentelemetry/api";
import { fromUnknown } from "../errors/convert.ts";
import { ERROR_TYPE } from "./semconv.ts";

/** Name under which all spans of the mesh are made. */
export const TRACER_NAME = "covenant";

/** Runs `work` inside a span; a failure is recorded on it with its code and passed on. */
export function withSpan<T>(
  name: string,
  attributes: Attributes,
  work: (span: Span) => Promise<T> | T,
): Promise<T> {
  return trace.getTracer(TRACER_NAME).startActiveSpan(name, { attributes }, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      recordFailure(span, error);
      throw error;
    } finally {
      span.end();
    }
  });
}

/**
 * Like `withSpan`, but part of a trace that began elsewhere or before a restart: work on one thing stays under one trace id, whichever
 * process does it. Without a valid trace id it is a plain span.
 */
export function withSpanOf<T>(
  traceId: string,
  name: string,
  attributes: Attributes,
  work: (span: Span) => Promise<T> | T,
): Promise<T> {
  if (!isValidTraceId(traceId)) return withSpan(name, attributes, work);
  const spanId = traceId.slice(16);
  const parent = { traceId, spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true };
  const joined = trace.setSpanContext(context.active(), parent);
  return context.with(joined, () => withSpan(name, attributes, work));
}

/** Marks a span as failed. */
export function recordFailure(span: Span, error: unknown): void {
  const { code, message } = fromUnknown(error);
  span.setAttribute(ERROR_TYPE, code);
  span.setStatus({ code: SpanStatusCode.ERROR, message: `${code}: ${message}` });
}

/** Trace id of the active span (32 hexadecimal digits), or undefined outside of one. */
export function currentTraceId(): string | undefined {
  return trace.getActiveSpan()?.spanContext().traceId;
}
