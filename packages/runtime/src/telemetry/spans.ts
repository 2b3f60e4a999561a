/** Spans around pieces of work. */
import type { Attributes, Span } from "@opentelemetry/api";
import { SpanStatusCode, trace } from "@opentelemetry/api";
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
