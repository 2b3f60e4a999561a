import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Logger } from "@covenant/runtime";
import { CovenantError, withSpan } from "@covenant/runtime";
import type { KeyCheck } from "./api-keys.ts";
import { OpenAiError, toOpenAiError } from "./errors.ts";
import type { HandlerModules } from "./handlers.ts";
import { complete, getModel, getReceipt, listModels } from "./handlers.ts";
import { sendError, sendJson } from "./http-util.ts";

/** Bounds and address of the endpoint. */
export interface OpenAiServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly allowedOrigins: readonly string[];
  readonly bodyBytesMax: number;
  readonly requestsMax: number;
}

interface Modules extends HandlerModules {
  readonly checkKey: KeyCheck;
  readonly logger: Logger;
}

const headerTimeoutMs = 10_000;
const bodyTimeoutMs = 60_000;
const loopbackOrigin = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

/**
 * The OpenAI-compatible endpoint: plain HTTP, for loopback or behind a proxy that does TLS. Pages
 * from other origins are refused, so that a web page cannot use it behind its user's back.
 */
export class OpenAiServer {
  readonly #options: OpenAiServerOptions;
  readonly #modules: Modules;
  readonly #server: Server;
  #open = 0;

  constructor(options: OpenAiServerOptions, modules: Modules) {
    this.#options = options;
    this.#modules = modules;
    this.#server = createServer({ headersTimeout: headerTimeoutMs, requestTimeout: bodyTimeoutMs });
    this.#server.on("request", (request, response) => void this.#serve(request, response));
  }

  /** Listens; resolves to "host:port". Throws COV_PORT_IN_USE. */
  start(): Promise<string> {
    const { host, port } = this.#options.listen;
    return new Promise((resolve, reject) => {
      this.#server.once("error", (error: NodeJS.ErrnoException) => {
        const inUse = error.code === "EADDRINUSE";
        const message = `the OpenAI endpoint cannot listen on ${host}:${port}`;
        reject(inUse ? new CovenantError("COV_PORT_IN_USE", message, { cause: error }) : error);
      });
      this.#server.listen(port, host, () => {
        resolve(`${host}:${(this.#server.address() as AddressInfo).port}`);
      });
    });
  }

  /** Takes no new requests and waits for open ones, at most `timeoutMs`. */
  async drain(timeoutMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), timeoutMs);
    await closed;
    clearTimeout(timer);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#open += 1;
    try {
      this.#allowOrigin(request, response);
      if (request.method === "OPTIONS") {
        response.writeHead(204).end();
        return;
      }
      if (this.#open > this.#options.requestsMax) {
        const type = "rate_limit_error";
        throw new OpenAiError(429, "too many requests are open", { type, retryAfterSeconds: 1 });
      }
      const attributes = { "http.request.method": request.method ?? "" };
      await withSpan("openai request", attributes, (span) => {
        span.setAttribute("url.path", request.url?.split("?")[0] ?? "");
        return this.#route(request, response);
      });
    } catch (reason) {
      const error = toOpenAiError(reason);
      if (error.status >= 500 && !response.destroyed) {
        this.#modules.logger.error({ error: reason, path: request.url }, "request failed");
      }
      sendError(response, error);
    } finally {
      this.#open -= 1;
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://local");
    const path = decodePath(url.pathname);
    if (path === "/health") return sendJson(response, 200, { status: "ok" });
    this.#modules.checkKey(request.headers.authorization);
    const { bodyBytesMax } = this.#options;
    const modules = { ...this.#modules, bodyBytesMax };
    switch (`${request.method} ${path}`) {
      case "POST /v1/chat/completions":
        return complete("chat", request, response, modules);
      case "POST /v1/completions":
        return complete("completion", request, response, modules);
      case "GET /v1/models":
        return listModels(response, modules);
    }
    const [, kind, id] = /^\/v1\/(models|receipts)\/(.{1,256})$/.exec(path) ?? [];
    if (request.method === "GET" && id !== undefined) {
      if (kind === "models") return getModel(id, response, modules);
      const choice = Number(url.searchParams.get("choice") ?? "0");
      return getReceipt(id, choice, request, response, modules);
    }
    const message = `there is no ${request.method} ${path}`;
    throw new OpenAiError(404, message, { code: "unknown_url" });
  }

  #allowOrigin(request: IncomingMessage, response: ServerResponse): void {
    const { origin } = request.headers;
    if (origin === undefined) return;
    if (!loopbackOrigin.test(origin) && !this.#options.allowedOrigins.includes(origin)) {
      throw new OpenAiError(403, "this origin may not call", { code: "origin_not_allowed" });
    }
    response.setHeader("access-control-allow-origin", origin);
    response.setHeader("vary", "origin");
    response.setHeader("access-control-allow-methods", "GET, POST, OPTIONS");
    response.setHeader("access-control-allow-headers", "authorization, content-type, accept");
    response.setHeader("access-control-max-age", "600");
  }
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    throw new OpenAiError(400, "the path is not well-formed");
  }
}
