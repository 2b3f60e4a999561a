import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type Logger, withSpan } from "@covenant/runtime";
import { context, propagation } from "@opentelemetry/api";
import { z } from "zod";
import { GENESIS_HEADER, HEAD_HEADER, RPC_ERRORS, WAIT_MS_MAX } from "../wire.ts";
import type { createMethods } from "./methods.ts";
import type { ChainNode } from "./node.ts";
import { errorBody, type RpcErrorBody } from "./rpc-error.ts";

/** Largest request body. */
export const BODY_BYTES_MAX = 1024 * 1024;
/** Most calls in one batch. */
export const BATCH_MAX = 64;
/** Most open connections; long polls hold theirs. */
const CONNECTIONS_MAX = 2048;
/** A request must have arrived completely within this time. */
const REQUEST_TIMEOUT_MS = 15_000;

const requestSchema = z.object({
  jsonrpc: z.literal("2.0"),
  id: z.union([z.string().max(128), z.number(), z.null()]).optional(),
  method: z.string().max(128),
  params: z.unknown().optional(),
});

type JsonId = string | number | null;
type JsonResponse =
  | { jsonrpc: "2.0"; id: JsonId; result: unknown }
  | { jsonrpc: "2.0"; id: JsonId; error: RpcErrorBody };

/** What the server stands on. */
export interface RpcModules {
  node: ChainNode;
  methods: ReturnType<typeof createMethods>;
  logger: Logger;
  /** Aborted on shutdown: waiting calls end. */
  signal: AbortSignal;
}

/**
 * JSON-RPC 2.0 over plain HTTP: POST / with one request or a batch, GET /health for probes. Plain
 * because every change of state is a signed extrinsic bound to this chain; listen on loopback.
 */
export class RpcServer {
  readonly #modules: RpcModules;
  readonly #server: Server;

  constructor(modules: RpcModules) {
    this.#modules = modules;
    this.#server = createServer((request, response) => {
      void this.#handle(request, response).catch((error: unknown) => {
        modules.logger.error({ err: error }, "request failed");
        response.destroy();
      });
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.requestTimeout = REQUEST_TIMEOUT_MS;
    this.#server.headersTimeout = REQUEST_TIMEOUT_MS;
    this.#server.keepAliveTimeout = WAIT_MS_MAX * 2;
  }

  /** Begins to serve; port 0 takes a free one. */
  async start(listen: { host: string; port: number }): Promise<{ port: number }> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(listen.port, listen.host, () => {
        this.#server.off("error", reject);
        resolve();
      });
    });
    return { port: (this.#server.address() as AddressInfo).port };
  }

  /** Stops accepting and waits for open requests, at most `limitMs`. */
  async close(limitMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), limitMs);
    await closed;
    clearTimeout(timer);
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method === "GET" && request.url === "/health") {
      return this.#send(response, 200, { status: "serving", head: this.#modules.node.head });
    }
    if (request.method !== "POST" || request.url !== "/") {
      request.resume();
      return this.#send(response, 404, { message: "POST / takes JSON-RPC 2.0" });
    }
    const body = await readBody(request);
    if (body === undefined) {
      response.setHeader("connection", "close");
      return this.#send(response, 413, failure(null, RPC_ERRORS.invalidRequest, "body too large"));
    }
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const signal = AbortSignal.any([gone.signal, this.#modules.signal]);
    const answer = await this.#traced(request, () => this.#answer(body, signal));
    if (answer === undefined) return this.#send(response, 204, undefined);
    return this.#send(response, 200, answer);
  }

  /** Callers that send a trace see the chain's part in it; polling without one leaves no spans. */
  async #traced<Value>(request: IncomingMessage, work: () => Promise<Value>): Promise<Value> {
    if (request.headers.traceparent === undefined) return work();
    const parent = propagation.extract(context.active(), request.headers);
    return context.with(parent, () => withSpan("ledger.rpc", {}, work));
  }

  async #answer(
    body: string,
    signal: AbortSignal,
  ): Promise<JsonResponse | JsonResponse[] | undefined> {
    let value: unknown;
    try {
      value = JSON.parse(body);
    } catch {
      return failure(null, RPC_ERRORS.parse, "body is not JSON");
    }
    if (!Array.isArray(value)) return this.#call(value, signal);
    if (value.length === 0 || value.length > BATCH_MAX) {
      return failure(null, RPC_ERRORS.invalidRequest, `a batch holds 1 to ${BATCH_MAX} calls`);
    }
    const answers = await Promise.all(value.map((item) => this.#call(item, signal)));
    const present = answers.filter((answer) => answer !== undefined);
    return present.length === 0 ? undefined : present;
  }

  /** One call; undefined for notifications, which get no answer. */
  async #call(value: unknown, signal: AbortSignal): Promise<JsonResponse | undefined> {
    const parsed = requestSchema.safeParse(value);
    if (!parsed.success) return failure(null, RPC_ERRORS.invalidRequest, "not a JSON-RPC request");
    const { id, method: name, params } = parsed.data;
    const answerId = id ?? null;
    const method = this.#modules.methods.get(name);
    let answer: JsonResponse;
    if (method === undefined) {
      answer = failure(answerId, RPC_ERRORS.methodNotFound, `no method ${JSON.stringify(name)}`);
    } else {
      try {
        const result = await method.run(params, signal);
        answer = { jsonrpc: "2.0", id: answerId, result };
      } catch (error) {
        answer = { jsonrpc: "2.0", id: answerId, error: this.#errorOf(name, error) };
      }
    }
    return id === undefined ? undefined : answer;
  }

  #errorOf(method: string, error: unknown): RpcErrorBody {
    const body = errorBody(error);
    if (body !== undefined) return body;
    this.#modules.logger.error({ err: error, method }, "method failed");
    return { code: RPC_ERRORS.internal, message: "internal error" };
  }

  #send(response: ServerResponse, status: number, value: unknown): void {
    if (response.destroyed) return;
    const { node } = this.#modules;
    response.writeHead(status, {
      "content-type": "application/json",
      [HEAD_HEADER]: String(node.head.number),
      [GENESIS_HEADER]: node.state.genesisHash,
    });
    response.end(value === undefined ? undefined : JSON.stringify(value));
  }
}

function failure(id: JsonId, code: number, message: string): JsonResponse {
  return { jsonrpc: "2.0", id, error: { code, message } };
}

/** The body as text; undefined when it is larger than the limit (the rest is not read). */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  // The socket must survive, so that the refusal can be answered.
  for await (const part of request.iterator({ destroyOnReturn: false })) {
    bytes += (part as Buffer).length;
    if (bytes > BODY_BYTES_MAX) return undefined;
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts).toString("utf8");
}
