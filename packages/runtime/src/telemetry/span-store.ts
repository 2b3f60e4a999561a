/** The latest finished spans of this process, in memory, for the console and `covenant trace`. */
import type { ReadableSpan, SpanProcessor } from "@opentelemetry/sdk-trace-base";

/** A finished span as it is kept. */
export interface StoredSpan {
  traceId: string;
  spanId: string;
  /** Empty for a root. */
  parentSpanId: string;
  name: string;
  startUnixNanos: bigint;
  durationNanos: bigint;
  attributes: Record<string, string>;
  /** Empty when the span ended without error. */
  error: string;
  /** True when the parent is in another process or there is none. */
  isLocalRoot: boolean;
  /** Rises by one with every span stored. */
  sequence: number;
}

const NANOS_PER_SECOND = 1_000_000_000n;
const ERROR_STATUS = 2;

/** Spans kept by a process unless told otherwise: a few MiB. */
export const SPAN_CAPACITY = 4096;

/** A ring of spans: the oldest goes when a new one comes. */
export class SpanStore implements SpanProcessor {
  readonly #capacity: number;
  readonly #spans: StoredSpan[] = [];
  #next = 0;

  constructor(options: { capacity?: number } = {}) {
    this.#capacity = options.capacity ?? SPAN_CAPACITY;
  }

  /** Spans of one trace, by start. */
  byTrace(traceId: string): StoredSpan[] {
    return this.#spans
      .filter((span) => span.traceId === traceId)
      .sort((a, b) => (a.startUnixNanos < b.startUnixNanos ? -1 : 1));
  }

  /** Local roots, newest first, that were stored before `beforeSequence`. */
  roots(limit: number, beforeSequence = Number.POSITIVE_INFINITY): StoredSpan[] {
    return this.#spans
      .filter((span) => span.isLocalRoot && span.sequence < beforeSequence)
      .sort((a, b) => b.sequence - a.sequence)
      .slice(0, limit);
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    const parent = span.parentSpanContext;
    const { traceId, spanId } = span.spanContext();
    this.#spans[this.#next % this.#capacity] = {
      traceId,
      spanId,
      parentSpanId: parent?.spanId ?? "",
      name: span.name,
      startUnixNanos: toNanos(span.startTime),
      durationNanos: toNanos(span.duration),
      attributes: toText(span.attributes),
      error: span.status.code === ERROR_STATUS ? (span.status.message ?? "error") : "",
      isLocalRoot: parent === undefined || parent.isRemote === true,
      sequence: this.#next,
    };
    this.#next++;
  }

  async forceFlush(): Promise<void> {}

  async shutdown(): Promise<void> {}
}

function toNanos([seconds, nanos]: [number, number]): bigint {
  return BigInt(seconds) * NANOS_PER_SECOND + BigInt(nanos);
}

function toText(attributes: ReadableSpan["attributes"]): Record<string, string> {
  return Object.fromEntries(Object.entries(attributes).map(([key, value]) => [key, String(value)]));
}
