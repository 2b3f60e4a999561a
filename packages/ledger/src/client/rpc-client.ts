import { type Clock, CovenantError } from "@covenant/runtime";
import { context, propagation } from "@opentelemetry/api";
import { z } from "zod";
import { GENESIS_HEADER, HEAD_HEADER } from "../wire.ts";
import { rpcError } from "./errors.ts";
import { type HttpAnswer, HttpPoster } from "./http.ts";

/** Attempts of one call when the connection fails, the first included. */
const ATTEMPTS_MAX = 8;
const FIRST_PAUSE_MS = 50;
const PAUSE_MS_MAX = 1000;

const responseSchema = z.union([
  z.object({
    jsonrpc: z.literal("2.0"),
    error: z.object({
      code: z.number(),
      message: z.string(),
      data: z.record(z.string(), z.string()).optional(),
    }),
  }),
  z.object({ jsonrpc: z.literal("2.0"), result: z.unknown() }),
]);

/** Limits of one call. */
export interface CallLimits {
  timeoutMs: number;
  signal?: AbortSignal | undefined;
}

/**
 * JSON-RPC calls with a deadline each. A failed connection is tried again within the deadline, so
 * only methods that may run twice are called: reads, and extrinsics, which their nonce makes unique.
 */
export class RpcClient {
  readonly #poster: HttpPoster;
  readonly #clock: Clock;
  readonly #closing = new AbortController();
  #genesisHash: string | undefined;
  #headBlock = 0;
  #nextId = 1;

  constructor(options: { url: string }, modules: { clock: Clock }) {
    this.#poster = new HttpPoster(options.url);
    this.#clock = modules.clock;
  }

  /**
   * Calls a method and checks its answer.
   * @throws COV_DEADLINE_EXCEEDED, COV_CANCELLED, COV_LEDGER_UNAVAILABLE, COV_LEDGER_CHAIN_CHANGED,
   * COV_LEDGER_ANSWER_INVALID, and what the chain itself answers
   */
  async call<Schema extends z.ZodType>(
    method: string,
    params: object,
    schema: Schema,
    limits: CallLimits,
  ): Promise<z.output<Schema>> {
    const deadline = AbortSignal.timeout(Math.max(1, Math.ceil(limits.timeoutMs)));
    const cancelled = AbortSignal.any([
      this.#closing.signal,
      ...(limits.signal === undefined ? [] : [limits.signal]),
    ]);
    const signal = AbortSignal.any([deadline, cancelled]);
    const body = JSON.stringify({ jsonrpc: "2.0", id: this.#nextId++, method, params });
    for (let attempt = 1; ; attempt++) {
      let failure: unknown;
      try {
        signal.throwIfAborted();
        const answer = await this.#poster.post(body, traceHeaders(), signal);
        this.#checkChain(answer);
        return parseAnswer(answer, method, schema);
      } catch (error) {
        failure = error;
      }
      if (cancelled.aborted) throw cancelledError(method, failure);
      if (deadline.aborted) throw deadlineError(method, limits.timeoutMs, failure);
      if (attempt >= ATTEMPTS_MAX || !isConnectionFailure(failure)) throw failure;
      await this.#pause(attempt, signal);
    }
  }

  /** Ends all calls and connections. */
  close(): void {
    this.#closing.abort();
    this.#poster.close();
  }

  async #pause(attempt: number, signal: AbortSignal): Promise<void> {
    const pauseMs = Math.min(PAUSE_MS_MAX, FIRST_PAUSE_MS * 2 ** (attempt - 1));
    // An abort ends the pause early; the next round of the loop tells why.
    await this.#clock.sleep(pauseMs, signal).catch(() => undefined);
  }

  /** A restarted node can silently be another chain: nothing read from it may be believed. */
  #checkChain(answer: HttpAnswer): void {
    const genesisHash = answer.headers[GENESIS_HEADER];
    const head = Number(answer.headers[HEAD_HEADER]);
    if (typeof genesisHash !== "string" || !Number.isInteger(head)) {
      throw new CovenantError("COV_LEDGER_ANSWER_INVALID", "the answer is not from a ledger");
    }
    this.#genesisHash ??= genesisHash;
    if (this.#genesisHash !== genesisHash) {
      throw new CovenantError("COV_LEDGER_CHAIN_CHANGED", "the ledger has another genesis", {
        metadata: { expected: this.#genesisHash, actual: genesisHash },
      });
    }
    // Answers of parallel calls may overtake each other by a few blocks; a real loss is larger.
    if (head + REORDER_BLOCKS < this.#headBlock) {
      throw new CovenantError("COV_LEDGER_CHAIN_CHANGED", "the ledger's head went back", {
        metadata: { seen: this.#headBlock, actual: head },
      });
    }
    this.#headBlock = Math.max(this.#headBlock, head);
  }
}

/** How far answers of parallel calls may be out of order. */
const REORDER_BLOCKS = 64;

function traceHeaders(): Record<string, string> {
  const headers: Record<string, string> = {};
  propagation.inject(context.active(), headers);
  return headers;
}

function parseAnswer<Schema extends z.ZodType>(
  answer: HttpAnswer,
  method: string,
  schema: Schema,
): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(answer.body);
  } catch (cause) {
    throw invalidAnswer(method, `status ${answer.status} without JSON`, cause);
  }
  const response = responseSchema.safeParse(value);
  if (!response.success) throw invalidAnswer(method, "not a JSON-RPC answer", response.error);
  if ("error" in response.data) throw rpcError(response.data.error, method);
  const result = schema.safeParse(response.data.result);
  if (!result.success) throw invalidAnswer(method, "unexpected result", result.error);
  return result.data;
}

function isConnectionFailure(error: unknown): boolean {
  return error instanceof CovenantError && error.code === "COV_LEDGER_UNAVAILABLE";
}

function invalidAnswer(method: string, what: string, cause: unknown): CovenantError {
  return new CovenantError("COV_LEDGER_ANSWER_INVALID", `${method}: ${what}`, { cause });
}

function deadlineError(method: string, timeoutMs: number, cause: unknown): CovenantError {
  return new CovenantError("COV_DEADLINE_EXCEEDED", `${method} took over ${timeoutMs} ms`, {
    cause,
    metadata: { method, timeoutMs },
  });
}

function cancelledError(method: string, cause: unknown): CovenantError {
  return new CovenantError("COV_CANCELLED", `${method} was cancelled`, { cause });
}
