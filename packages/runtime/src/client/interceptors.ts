/** What happens around every call that leaves: trace, retries within a budget, token. */
import type { Interceptor } from "@connectrpc/connect";
import { context, propagation, SpanKind, trace } from "@opentelemetry/api";
import { ExponentialBackoff, handleWhen, retry } from "cockatiel";
import { methodName } from "../auth/gate.ts";
import { fromUnknown } from "../errors/convert.ts";
import {
  RPC_METHOD,
  RPC_STATUS,
  RPC_SYSTEM,
  SERVER_ADDRESS,
  SERVER_PORT,
} from "../telemetry/semconv.ts";
import { recordFailure, TRACER_NAME } from "../telemetry/spans.ts";
import type { TokenSource } from "./token-source.ts";

const RETRIES_MAX = 3;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;
/** Retries that may be in hand at once; each success gives a tenth back. */
const RETRY_BUDGET = 10;
const RETRY_REFUND = 0.1;

/** Reads are named so throughout the protocol; everything else may change state. */
const READ = /^(Check|Get|List)/;

/** A client span for each call, and its trace on the wire. */
export function traceInterceptor(authority: string): Interceptor {
  const { hostname, port } = new URL(`https://${authority}`);
  return (next) => async (request) => {
    const name = methodName(request);
    const attributes = {
      [RPC_SYSTEM]: "connect_rpc",
      [RPC_METHOD]: name,
      [SERVER_ADDRESS]: hostname,
      [SERVER_PORT]: Number(port || 443),
    };
    const span = trace
      .getTracer(TRACER_NAME)
      .startSpan(name, { kind: SpanKind.CLIENT, attributes });
    const active = trace.setSpan(context.active(), span);
    const set = (headers: Headers, key: string, value: string) => headers.set(key, value);
    propagation.inject(active, request.header, { set });
    const end = (error?: unknown) => {
      span.setAttribute(RPC_STATUS, error ? fromUnknown(error).status.toUpperCase() : "OK");
      if (error) recordFailure(span, error);
      span.end();
    };
    try {
      const response = await context.with(active, () => next(request));
      if (!response.stream) {
        end();
        return response;
      }
      return { ...response, message: untilEnd(response.message, end) };
    } catch (error) {
      end(error);
      throw error;
    }
  };
}

async function* untilEnd<T>(
  messages: AsyncIterable<T>,
  end: (error?: unknown) => void,
): AsyncGenerator<T> {
  let failure: unknown;
  try {
    yield* messages;
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    end(failure);
  }
}

/** Repeats unary reads while the server is unavailable, within the call's deadline and a budget. */
export function retryInterceptor(): Interceptor {
  let budget = RETRY_BUDGET;
  const policy = retry(
    handleWhen((error) => {
      const { status, retryable } = fromUnknown(error);
      if (status !== "unavailable" || !retryable || budget < 1) return false;
      budget -= 1;
      return true;
    }),
    {
      maxAttempts: RETRIES_MAX,
      backoff: new ExponentialBackoff({ initialDelay: FIRST_RETRY_MS, maxDelay: LAST_RETRY_MS }),
    },
  );
  return (next) => async (request) => {
    if (request.stream || !READ.test(request.method.name)) return next(request);
    const response = await policy.execute(() => next(request), request.signal);
    budget = Math.min(RETRY_BUDGET, budget + RETRY_REFUND);
    return response;
  };
}

/** Sends the hotkey's token; a unary call whose token was refused is repeated once with a new one. */
export function tokenInterceptor(tokens: TokenSource): Interceptor {
  return (next) => async (request) => {
    const token = await tokens.get();
    request.header.set("authorization", `Bearer ${token}`);
    try {
      return await next(request);
    } catch (error) {
      if (fromUnknown(error).status !== "unauthenticated") throw error;
      tokens.invalidate(token);
      if (request.stream) throw error;
      request.header.set("authorization", `Bearer ${await tokens.get()}`);
      return next(request);
    }
  };
}
