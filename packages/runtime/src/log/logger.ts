/** Structured logs: one JSON object a line to standard error, with the trace they belong to. */
import { trace } from "@opentelemetry/api";
import type { DestinationStream, Logger as PinoLogger } from "pino";
import { pino } from "pino";

/** A structured logger: `logger.info({ round }, "Round closed")`. */
export type Logger = PinoLogger;

/** Levels from loud to quiet. */
export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "silent"] as const;

/** What a logger is made of. */
export interface LoggerOptions {
  service: string;
  level?: (typeof LOG_LEVELS)[number];
  /** Where lines go; standard error when absent. */
  destination?: DestinationStream;
}

/** Fields whose values never reach a log. */
const SECRET_PATHS = [
  "token",
  "authorization",
  "password",
  "secret",
  "seed",
  "*.token",
  "*.secret",
];

/** Makes a logger. Times are ISO 8601 in UTC; errors keep code, remedy, stack and cause. */
export function createLogger(options: LoggerOptions): Logger {
  const { service, level = "info" } = options;
  // Written at once: the last lines before a crash are the ones somebody needs.
  const destination = options.destination ?? pino.destination({ fd: 2, sync: true });
  return pino(
    {
      level,
      base: { service, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRET_PATHS, censor: "[hidden]" },
      serializers: {
        error: pino.stdSerializers.errWithCause,
        err: pino.stdSerializers.errWithCause,
      },
      mixin: traceFields,
    },
    destination,
  );
}

function traceFields(): Record<string, string> {
  const context = trace.getActiveSpan()?.spanContext();
  return context ? { traceId: context.traceId, spanId: context.spanId } : {};
}
