import type { CovenantError } from "@covenant/runtime";
import { fromUnknown } from "@covenant/runtime";

/** An error in the shape that OpenAI clients expect, with its HTTP status. */
export class OpenAiError extends Error {
  readonly status: number;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;
  /** Seconds after which the same request may succeed. */
  readonly retryAfterSeconds: number | undefined;

  constructor(
    status: number,
    message: string,
    options: { type?: string; code?: string; param?: string; retryAfterSeconds?: number } = {},
  ) {
    super(message);
    this.name = "OpenAiError";
    this.status = status;
    this.type = options.type ?? (status >= 500 ? "server_error" : "invalid_request_error");
    this.code = options.code ?? null;
    this.param = options.param ?? null;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  /** The response body. */
  body(): { error: { message: string; type: string; code: string | null; param: string | null } } {
    const { message, type, code, param } = this;
    return { error: { message, type, code, param } };
  }
}

/** A request that breaks a rule; `param` names the field. */
export function invalidRequest(message: string, param?: string, code?: string): OpenAiError {
  return new OpenAiError(400, message, {
    ...(param !== undefined && { param }),
    ...(code !== undefined && { code }),
  });
}

/** Turns anything caught into an error of this shape; internals are not told. */
export function toOpenAiError(reason: unknown): OpenAiError {
  if (reason instanceof OpenAiError) return reason;
  const error = fromUnknown(reason);
  switch (error.code) {
    case "COV_MODEL_NOT_FOUND":
      return new OpenAiError(404, error.message, { code: "model_not_found", param: "model" });
    case "COV_CONTEXT_TOO_LONG":
      return invalidRequest(error.message, "messages", "context_length_exceeded");
    case "COV_RECEIPT_NOT_FOUND":
      return new OpenAiError(404, error.message, { code: "receipt_not_found" });
    case "COV_BUSY":
      return busy(error);
    default:
      return byStatus(error);
  }
}

function busy(error: CovenantError): OpenAiError {
  const seconds = Math.ceil(Number(error.metadata.retryAfterMs ?? "1000") / 1_000);
  const retryAfterSeconds = Number.isFinite(seconds) && seconds > 0 ? seconds : 1;
  const code = "rate_limit_exceeded";
  return new OpenAiError(429, error.message, { type: "rate_limit_error", code, retryAfterSeconds });
}

function byStatus(error: CovenantError): OpenAiError {
  switch (error.status) {
    case "invalid_argument":
    case "out_of_range":
      return invalidRequest(error.message, error.metadata.field);
    case "resource_exhausted":
      return busy(error);
    case "unavailable":
      return new OpenAiError(503, "no replica can answer now", { retryAfterSeconds: 1 });
    case "deadline_exceeded":
      return new OpenAiError(504, "the answer took too long");
    case "unimplemented":
      return new OpenAiError(501, error.message);
    default:
      return new OpenAiError(500, "the request failed inside the server");
  }
}
