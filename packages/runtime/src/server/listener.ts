/** One TLS port for HTTP/2 and HTTP/1.1: connections, their liveness, and how they end. */
import type { Http2SecureServer, ServerHttp2Session } from "node:http2";
import { createSecureServer } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { Listen, TlsFiles } from "../config/schemas.ts";
import { CovenantError } from "../errors/covenant-error.ts";
import { readFileLimited } from "../files/files.ts";
import type { Logger } from "../log/logger.ts";
import type { NodeRequest, NodeResponse } from "./adapter.ts";
import type { ServerLimits } from "./limits.ts";

const PEM_BYTES_MAX = 256 * 1024;
const POLL_MS = 20;

/** An open port. */
export interface Listener {
  port: number;
  /** Stops accepting, tells clients, waits up to `timeoutMs` for calls in flight, then cuts. */
  close(timeoutMs: number): Promise<void>;
}

/**
 * Opens the port. Client certificates are asked for and never required: the gate decides by method.
 * Throws COV_PORT_IN_USE, COV_FILE_NOT_FOUND and COV_CONFIG_INVALID for unusable certificates.
 */
export async function openListener(
  options: { listen: Listen; tls: TlsFiles; limits: ServerLimits },
  modules: { onRequest: (request: NodeRequest, response: NodeResponse) => void; logger: Logger },
): Promise<Listener> {
  const { listen, tls, limits } = options;
  const [cert, key, ca] = await Promise.all([tls.certFile, tls.keyFile, tls.caFile].map(readPem));
  let server: Http2SecureServer;
  try {
    server = createSecureServer({
      cert: cert!,
      key: key!,
      ca: ca!,
      allowHTTP1: true,
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: "TLSv1.2",
      maxSessionMemory: limits.connectionMemoryMiB,
      settings: {
        maxConcurrentStreams: limits.streamsPerConnection,
        initialWindowSize: limits.windowBytes,
      },
    });
  } catch (error) {
    throw new CovenantError(
      "COV_CONFIG_INVALID",
      `The TLS files cannot be used: ${String(error)}`,
      {
        metadata: { certFile: tls.certFile, keyFile: tls.keyFile, caFile: tls.caFile },
        cause: error,
      },
    );
  }
  server.maxConnections = limits.connections;
  const connections = trackConnections(server, limits, modules.logger);
  let inFlight = 0;
  server.on("request", (request: NodeRequest, response: NodeResponse) => {
    inFlight++;
    response.once("close", () => inFlight--);
    modules.onRequest(request, response);
  });
  const port = await listenOn(server, listen);
  return { port, close: (timeoutMs) => close(server, connections, () => inFlight, timeoutMs) };
}

async function readPem(path: string): Promise<Buffer> {
  return Buffer.from(await readFileLimited(path, PEM_BYTES_MAX));
}

interface Connections {
  sockets: Set<Socket>;
  sessions: Set<ServerHttp2Session>;
}

function trackConnections(
  server: Http2SecureServer,
  limits: ServerLimits,
  logger: Logger,
): Connections {
  const connections: Connections = { sockets: new Set(), sessions: new Set() };
  server.on("connection", (socket: Socket) => {
    connections.sockets.add(socket);
    socket.once("close", () => connections.sockets.delete(socket));
  });
  server.on("session", (session) => {
    connections.sessions.add(session);
    // Bulk streams share the connection's window; the protocol's 64 KiB would throttle them.
    session.setLocalWindowSize(limits.windowBytes * 8);
    const stopPings = keepAlive(session, limits);
    session.once("close", () => {
      stopPings();
      connections.sessions.delete(session);
    });
  });
  const quiet = (what: string) => (error: Error) => logger.debug({ error }, what);
  server.on("sessionError", quiet("Connection failed"));
  server.on("tlsClientError", quiet("TLS handshake failed"));
  server.on("clientError", (error: Error, socket: Socket) => {
    quiet("Not HTTP")(error);
    if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    else socket.destroy();
  });
  server.on("unknownProtocol", (socket: Socket) => socket.destroy());
  server.on("error", quiet("Listener failed"));
  return connections;
}

/** Pings a connection while calls are open on it; one that does not answer is cut. */
function keepAlive(session: ServerHttp2Session, limits: ServerLimits): () => void {
  let deadline: NodeJS.Timeout | undefined;
  const timer = setInterval(() => {
    if (session.destroyed || deadline) return;
    const answered = () => {
      clearTimeout(deadline);
      deadline = undefined;
    };
    if (session.ping(answered)) {
      deadline = setTimeout(() => session.destroy(), limits.pingTimeoutMs);
      deadline.unref();
    }
  }, limits.pingIntervalMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    clearTimeout(deadline);
  };
}

function listenOn(server: Http2SecureServer, { host, port }: Listen): Promise<number> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => reject(listenError(error, host, port));
    server.once("error", onError);
    server.listen(port, host, () => {
      server.off("error", onError);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const metadata = { host, port };
  if (error.code === "EADDRINUSE") {
    return new CovenantError("COV_PORT_IN_USE", `Port ${port} on ${host} is in use`, {
      remedy: `Set listen.port to another port (0 picks a free one) or stop what uses ${port}.`,
      metadata,
      cause: error,
    });
  }
  return new CovenantError(
    "COV_CONFIG_INVALID",
    `Cannot listen on ${host}:${port}: ${error.code}`,
    {
      remedy: "Set listen.host to an address of this machine and listen.port to one you may use.",
      metadata,
      cause: error,
    },
  );
}

async function close(
  server: Http2SecureServer,
  connections: Connections,
  inFlight: () => number,
  timeoutMs: number,
): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  for (const session of connections.sessions) {
    if (!session.destroyed) session.goaway();
  }
  const giveUpAt = performance.now() + timeoutMs;
  while (inFlight() > 0 && performance.now() < giveUpAt) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  for (const session of connections.sessions) session.close();
  // What closes gracefully has said its last word within one more turn.
  await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  for (const session of connections.sessions) session.destroy();
  for (const socket of connections.sockets) socket.destroy();
  await closed;
}
