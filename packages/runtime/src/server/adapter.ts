/**
 * From Node's request to the RPC library's handlers: connection identity, default and maximum
 * deadlines, typed errors for bodies that cannot be read.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Writable } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { ConnectRouter } from "@connectrpc/connect";
import { createContextValues } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import {
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { serviceNameOf } from "../auth/certificate.ts";
import type { ConnectionIdentity } from "../auth/gate.ts";
import { CONNECTION_KEY } from "../auth/gate.ts";
import { fromUnknown } from "../errors/convert.ts";
import type { Logger } from "../log/logger.ts";
import type { ServerLimits } from "./limits.ts";
import { withTypedError } from "./wire-errors.ts";

/** A request over either HTTP version. */
export type NodeRequest = IncomingMessage | Http2ServerRequest;
/** A response over either HTTP version. */
export type NodeResponse = ServerResponse | Http2ServerResponse;
/** Serves a path that is no RPC; true when it took the request. */
export type HttpHook = (request: NodeRequest, response: NodeResponse) => boolean;

/** The request listener of a server. */
export function createListener(
  options: { limits: ServerLimits; http?: HttpHook },
  modules: { router: ConnectRouter; logger: Logger },
): (request: NodeRequest, response: NodeResponse) => void {
  const handlers = new Map(modules.router.handlers.map((each) => [each.requestPath, each]));
  return (request, response) => {
    (response as Writable).on("error", (error) =>
      modules.logger.debug({ error }, "Response broke off"),
    );
    const handler = handlers.get((request.url ?? "").split("?", 1)[0]!);
    if (handler) {
      serve(handler, request, response, options.limits).catch((error) => {
        // The caller is gone or its connection broke; there is nobody left to answer.
        modules.logger.debug({ error, method: handler.method.name }, "Call broke off");
        if (!response.writableEnded) (response as Writable).destroy();
      });
      return;
    }
    if (options.http?.(request, response)) return;
    request.resume();
    notFound(response as ServerResponse);
  };
}

function notFound(response: ServerResponse): void {
  response.writeHead(404, { "content-type": "text/plain" });
  response.end("No such path\n");
}

async function serve(
  handler: UniversalHandler,
  request: NodeRequest,
  response: NodeResponse,
  limits: ServerLimits,
): Promise<void> {
  const values = createContextValues().set(CONNECTION_KEY, connectionOf(request));
  const universal = universalRequestFromNodeRequest(request, response, undefined, values);
  const isUnary = handler.method.methodKind === "unary";
  if (isUnary) boundDeadline(universal.header, limits);
  const answer = await handler(universal);
  await universalResponseToNodeResponse(isUnary ? await withTypedError(answer) : answer, response);
}

// Reading a certificate costs as much as a small call, and a connection never changes its own.
const identities = new WeakMap<TLSSocket, ConnectionIdentity>();

function connectionOf(request: NodeRequest): ConnectionIdentity {
  const socket = "stream" in request ? request.stream.session?.socket : request.socket;
  if (!socket) return {};
  const known = identities.get(socket as TLSSocket) ?? readIdentity(socket as TLSSocket);
  identities.set(socket as TLSSocket, known);
  return known;
}

function readIdentity(socket: TLSSocket): ConnectionIdentity {
  try {
    const service = serviceNameOf(socket);
    return service === undefined ? {} : { service };
  } catch (error) {
    return { error: fromUnknown(error) };
  }
}

const GRPC_UNITS_MS: Record<string, number> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000001,
};

/** Sets a deadline where the client set none and shortens one that is too long. */
export function boundDeadline(header: Headers, limits: ServerLimits): void {
  const isGrpc = (header.get("content-type") ?? "").startsWith("application/grpc");
  const name = isGrpc ? "grpc-timeout" : "connect-timeout-ms";
  const given = header.get(name);
  const suffix = isGrpc ? "m" : "";
  if (given === null) {
    header.set(name, `${limits.defaultDeadlineMs}${suffix}`);
    return;
  }
  const match = /^(\d{1,10})([HMSmun]?)$/.exec(given);
  const givenMs = match ? Number(match[1]) * (GRPC_UNITS_MS[match[2] || "m"] ?? 1) : 0;
  // What cannot be read is left for the library to refuse.
  if (givenMs > limits.maxDeadlineMs) header.set(name, `${limits.maxDeadlineMs}${suffix}`);
}
