/** One kept-alive HTTP/2 connection to a server, opened when needed and again after a loss. */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { TLSSocket } from "node:tls";
import { connect as connectTls } from "node:tls";
import { Http2SessionManager } from "@connectrpc/connect-node";
import type { TlsFiles } from "../config/schemas.ts";
import { CovenantError } from "../errors/covenant-error.ts";
import { fromFileError } from "../files/files.ts";

/** Time for TCP and TLS together. */
export const CONNECT_TIMEOUT_MS = 10_000;
const PING_INTERVAL_MS = 20_000;
const PING_TIMEOUT_MS = 15_000;
const IDLE_CONNECTION_MS = 300_000;
const WINDOW_BYTES = 4 * 1024 * 1024;
/** What a connection may hold unread and unsent; Node's default of 10 is two bulk messages. */
const CONNECTION_MEMORY_MIB = 128;

/** Where and how to connect. */
export interface ConnectionOptions {
  /** https URL without a path. */
  url: string;
  /** Authority that the server's certificate must come from. */
  caFile?: string;
  /** This client's own certificate; its caFile is used when `caFile` is absent. */
  tls?: TlsFiles;
}

/** A connection and how often it was made. */
export interface Connection {
  manager: Http2SessionManager;
  /** "host" or "host:port" as requests name it. */
  authority: string;
  /** Rises with every new connection: what was bound to the earlier one is void. */
  generation(): number;
}

/** Prepares a connection; opens nothing yet. Throws for URLs that are no https and unreadable files. */
export function createConnection(options: ConnectionOptions): Connection {
  const url = parseUrl(options.url);
  const caFile = options.caFile ?? options.tls?.caFile;
  const secure = {
    ...(caFile && { ca: readPem(caFile) }),
    ...(options.tls && { cert: readPem(options.tls.certFile), key: readPem(options.tls.keyFile) }),
  };
  let generation = 0;
  const manager = new Http2SessionManager(
    url.origin,
    {
      pingIntervalMs: PING_INTERVAL_MS,
      pingTimeoutMs: PING_TIMEOUT_MS,
      idleConnectionTimeoutMs: IDLE_CONNECTION_MS,
    },
    {
      settings: { initialWindowSize: WINDOW_BYTES },
      maxSessionMemory: CONNECTION_MEMORY_MIB,
      createConnection: () => {
        generation++;
        const socket = connectTls({
          ...secure,
          host: url.hostname.replace(/^\[|\]$/g, ""),
          port: Number(url.port || 443),
          ALPNProtocols: ["h2"],
          minVersion: "TLSv1.2",
          ...(isIP(url.hostname) === 0 && { servername: url.hostname }),
        });
        return limitHandshake(socket, url.host);
      },
    },
  );
  return { manager, authority: url.host, generation: () => generation };
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "https:" && url.pathname === "/" && !url.search) return url;
  throw new CovenantError("COV_CONFIG_INVALID", `"${text}" is not the address of a server`, {
    remedy: 'Write it as "https://host:port".',
    metadata: { url: text },
  });
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fromFileError(error, path);
  }
}

/** A server that accepts and then says nothing must not hold a call without a deadline. */
function limitHandshake(socket: TLSSocket, host: string): TLSSocket {
  const timer = setTimeout(() => {
    const error = new Error(`No TLS connection to ${host} within ${CONNECT_TIMEOUT_MS} ms`);
    socket.destroy(Object.assign(error, { code: "ETIMEDOUT" }));
  }, CONNECT_TIMEOUT_MS);
  timer.unref();
  socket.once("secureConnect", () => clearTimeout(timer));
  socket.once("close", () => clearTimeout(timer));
  socket.setNoDelay(true);
  return socket;
}
