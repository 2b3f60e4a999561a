// Forwards gRPC-Web calls to the services and chat requests to the OpenAI endpoint, bytes as they are. What the
// page may call is decided by each service's authorisation table for the principal `console`, not here.
import { readFileSync } from "node:fs";
import {
  request as httpRequest,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type ServerResponse,
} from "node:http";
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import type { Logger } from "@covenant/runtime";

/** Where calls of a protocol package go. */
export interface ForwardTargets {
  registry: string;
  grail: string;
  scheduler: string;
}

interface ForwardOptions {
  tls: { certFile: string; keyFile: string; caFile: string };
  services: ForwardTargets;
  openAiUrl: string;
  requestBytesMax: number;
}

/** A forwarder; `handle` says whether the request was one of its own. */
export interface Forwarder {
  handle(request: IncomingMessage, response: ServerResponse): boolean;
  close(): void;
}

const connectTimeoutMs = 5_000;
/** Headers that belong to one hop, or that the upstream connection sets itself. */
const hopHeaders = new Set([
  "connection",
  "host",
  "keep-alive",
  "te",
  "transfer-encoding",
  "upgrade",
  "content-length",
  "cookie",
  "authorization",
]);

export function createForwarder(
  options: ForwardOptions,
  modules: { logger: Logger; findValidator: () => Promise<string | undefined> },
): Forwarder {
  const sessions = new Map<string, ClientHttp2Session>();
  const secrets = {
    cert: readFileSync(options.tls.certFile),
    key: readFileSync(options.tls.keyFile),
    ca: readFileSync(options.tls.caFile),
  };

  const sessionOf = (url: string) => {
    const known = sessions.get(url);
    if (known && !known.closed && !known.destroyed) return known;
    const session = connect(url, { ...secrets, timeout: connectTimeoutMs });
    session.on("error", (error) =>
      modules.logger.debug({ error, url }, "Upstream connection failed"),
    );
    session.on("close", () => {
      if (sessions.get(url) === session) sessions.delete(url);
    });
    // The timeout is for connecting; open streams may be silent for long.
    session.once("connect", () => session.setTimeout(0));
    sessions.set(url, session);
    return session;
  };

  const upstreamOf = (path: string): Promise<string | undefined> => {
    if (path.startsWith("/covenant.gauntlet.")) return modules.findValidator();
    if (path.startsWith("/covenant.registry.")) return Promise.resolve(options.services.registry);
    if (path.startsWith("/covenant.grail.")) return Promise.resolve(options.services.grail);
    return Promise.resolve(options.services.scheduler);
  };

  const forwardCall = async (request: IncomingMessage, response: ServerResponse) => {
    const body = await readBody(request, options.requestBytesMax);
    if (!body) {
      response.writeHead(413).end("The request is too large.\n");
      return;
    }
    const upstream = await upstreamOf(request.url ?? "/");
    if (!upstream) {
      response.writeHead(503, { "retry-after": "2" }).end("The validator is not running yet.\n");
      return;
    }
    const stream = sessionOf(upstream).request({
      ...passedOn(request.headers),
      ":method": "POST",
      ":path": request.url ?? "/",
    });
    relay(stream, response);
    stream.end(body);
  };

  return {
    handle(request, response) {
      const url = request.url ?? "/";
      const fail = (error: unknown) => {
        modules.logger.debug({ error, url }, "A call could not be forwarded");
        if (!response.headersSent) response.writeHead(502);
        response.end();
      };
      if (url.startsWith("/covenant.") && request.method === "POST") {
        forwardCall(request, response).catch(fail);
        return true;
      }
      if (url.startsWith("/v1/")) {
        forwardPlain(options.openAiUrl, request, response, fail);
        return true;
      }
      return false;
    },
    close() {
      for (const session of sessions.values()) session.close();
    },
  };
}

function passedOn(headers: IncomingMessage["headers"]): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !hopHeaders.has(name)));
}

async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer | undefined> {
  const pieces: Buffer[] = [];
  let total = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    total += piece.byteLength;
    if (total > bytesMax) return undefined;
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

function relay(stream: ClientHttp2Stream, response: ServerResponse): void {
  stream.on("response", (headers) => {
    const plain = Object.fromEntries(
      Object.entries(headers).filter(([name]) => !name.startsWith(":") && !hopHeaders.has(name)),
    );
    response.writeHead(
      Number(headers[constants.HTTP2_HEADER_STATUS]),
      plain as OutgoingHttpHeaders,
    );
    // The page must see that a watch is open before its first message.
    response.flushHeaders();
  });
  stream.on("error", () => {
    if (!response.headersSent) response.writeHead(502);
    response.end();
  });
  stream.pipe(response);
  // A closed tab must not keep a watch alive upstream.
  response.on("close", () => stream.close(constants.NGHTTP2_CANCEL));
}

function forwardPlain(
  baseUrl: string,
  request: IncomingMessage,
  response: ServerResponse,
  fail: (error: unknown) => void,
): void {
  const target = new URL(request.url ?? "/", baseUrl);
  const upstream = httpRequest(
    target,
    { method: request.method, headers: passedOn(request.headers) },
    (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    },
  );
  upstream.on("error", fail);
  response.on("close", () => upstream.destroy());
  request.pipe(upstream);
}
