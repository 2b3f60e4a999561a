/** What happens around every handler: trace, deadline, idle bound, error mapping, one log line. */
import type { Interceptor, StreamRequest, UnaryRequest } from "@connectrpc/connect";
import type { Context, Span } from "@opentelemetry/api";
import { context, propagation, ROOT_CONTEXT, SpanKind, trace } from "@opentelemetry/api";
import { methodName } from "../auth/gate.ts";
import { describePrincipal, PRINCIPAL_KEY } from "../auth/principal.ts";
import { fromUnknown, toConnectError } from "../errors/convert.ts";
import type { Logger } from "../log/logger.ts";
import { CALLER, RPC_METHOD, RPC_STATUS, RPC_SYSTEM } from "../telemetry/semconv.ts";
import { recordFailure, TRACER_NAME } from "../telemetry/spans.ts";
import type { ServerLimits } from "./limits.ts";
import { guardStream, orAborted, StreamWatch } from "./stream-guard.ts";

const HEADERS_GETTER = {
  get: (headers: Headers, key: string) => headers.get(key) ?? undefined,
  keys: (headers: Headers) => [...headers.keys()],
};

/** Makes the interceptor of a server. */
export function createServerInterceptor(
  options: { limits: ServerLimits; draining: AbortSignal },
  modules: { logger: Logger },
): Interceptor {
  const { limits, draining } = options;
  return (next) => async (request) => {
    const call = startCall(request, modules.logger);
    if (!request.stream) {
      try {
        const response = await call.run(() => orAborted(next(request), request.signal));
        call.end();
        return response;
      } catch (error) {
        call.end(error);
        throw toConnectError(error);
      }
    }
    const watch = new StreamWatch({
      signal: request.signal,
      idleMs: limits.streamIdleMs,
      draining,
      drainIdleMs: limits.drainStreamIdleMs,
    });
    try {
      const incoming = { ...request, message: touching(request.message, watch) } as StreamRequest;
      const begun = call.run(() => next(incoming));
      const response = await orAborted(Promise.race([begun, watch.expired]), request.signal);
      if (!response.stream) return response;
      const message = guardStream(response.message, request.signal, watch, call);
      return { ...response, message };
    } catch (error) {
      watch.close();
      call.end(error);
      throw toConnectError(error);
    }
  };
}

async function* touching<T>(messages: AsyncIterable<T>, watch: StreamWatch): AsyncGenerator<T> {
  for await (const message of messages) {
    watch.touch();
    yield message;
  }
}

/** One call: its span, its tracing context, and how it ends. */
function startCall(request: UnaryRequest | StreamRequest, logger: Logger) {
  const method = methodName(request);
  const caller = describePrincipal(request.contextValues.get(PRINCIPAL_KEY));
  const parent = propagation.extract(ROOT_CONTEXT, request.header, HEADERS_GETTER);
  const attributes = { [RPC_SYSTEM]: "connect_rpc", [RPC_METHOD]: method, [CALLER]: caller };
  const span = trace
    .getTracer(TRACER_NAME)
    .startSpan(method, { kind: SpanKind.SERVER, attributes }, parent);
  const active = trace.setSpan(parent, span);
  const startedAt = performance.now();
  return {
    run: <T>(work: () => Promise<T>): Promise<T> => context.with(active, work),
    map: toConnectError,
    end: (error?: unknown) => {
      endSpan(span, error);
      const durationMs = Math.round(performance.now() - startedAt);
      const isGone = causedBy(error, request.signal);
      logEnd(logger, active, { method, caller, durationMs, isGone }, error);
    },
  };
}

function endSpan(span: Span, error: unknown): void {
  span.setAttribute(RPC_STATUS, error ? fromUnknown(error).status.toUpperCase() : "OK");
  if (error) recordFailure(span, error);
  span.end();
}

/** True when the call ended because its caller went away or ran out of time. */
function causedBy(error: unknown, signal: AbortSignal): boolean {
  if (!error || !signal.aborted) return false;
  return error === signal.reason || (error as Error).cause === signal.reason;
}

/** Faults of ours are errors with their cause; refusals and callers that went are news at most; success is detail. */
function logEnd(
  logger: Logger,
  active: Context,
  { isGone, ...facts }: { isGone: boolean; method: string; caller: string; durationMs: number },
  error: unknown,
): void {
  context.with(active, () => {
    if (!error) return logger.debug(facts, "Call answered");
    const failure = fromUnknown(error);
    const line = { ...facts, code: failure.code, reason: failure.message };
    if (isGone) return logger.info(line, "Call ended by its caller");
    if (failure.status === "internal" || failure.status === "data_loss") {
      return logger.error({ ...line, error: failure }, "Call failed");
    }
    return logger.info(line, "Call refused");
  });
}
