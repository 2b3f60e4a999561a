/** Typed clients: one connection, one identity, deadlines and errors as the whole mesh has them. */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { CallOptions, Client } from "@connectrpc/connect";
import { createClient as createConnectClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import type { Hotkey } from "@covenant/contracts";
import type { TlsFiles } from "../config/schemas.ts";
import { fromUnknown } from "../errors/convert.ts";
import { CovenantError } from "../errors/covenant-error.ts";
import { DEFAULT_LIMITS } from "../server/limits.ts";
import type { Clock } from "../time/clock.ts";
import { systemClock } from "../time/clock.ts";
import type { Connection } from "./connection.ts";
import { createConnection } from "./connection.ts";
import { retryInterceptor, tokenInterceptor, traceInterceptor } from "./interceptors.ts";
import { TokenSource } from "./token-source.ts";

/** Where a client connects, as whom, and how long a unary call may take. */
export interface ClientOptions {
  /** https URL without a path. */
  url: string;
  /** Authority that the server's certificate must come from; from `tls` when absent. */
  caFile?: string;
  /** Certificate of an operator's service. */
  tls?: TlsFiles;
  /** Participant: proves this hotkey by challenge and token. */
  hotkey?: Hotkey;
  /** Deadline of unary calls that set none; streams have none unless the call sets it. */
  timeoutMs?: number;
}

/** Collaborators of a client. */
export interface ClientModules {
  clock?: Clock;
}

/** One connection and identity that several clients share. */
export interface Channel {
  /** A client of one service over this channel. */
  client<Desc extends DescService>(service: Desc): Client<Desc>;
  /** Cuts the connection; calls in flight fail. A later call opens a new one. */
  close(): void;
}

const channels = new WeakMap<object, Channel>();

/** Opens nothing yet: the connection is made with the first call and kept alive. */
export function createChannel(options: ClientOptions, modules: ClientModules = {}): Channel {
  const connection = createConnection(options);
  const interceptors = [traceInterceptor(connection.authority), retryInterceptor()];
  if (options.hotkey) {
    const transport = transportOver(connection, []);
    const clock = modules.clock ?? systemClock;
    const tokens = new TokenSource({ hotkey: options.hotkey }, { connection, transport, clock });
    interceptors.push(tokenInterceptor(tokens));
  }
  const transport = transportOver(connection, interceptors);
  const timeoutMs = options.timeoutMs ?? DEFAULT_LIMITS.defaultDeadlineMs;
  const channel: Channel = {
    client: (service) => {
      const client = typedErrors(service, createConnectClient(service, transport), timeoutMs);
      channels.set(client, channel);
      return client;
    },
    close: () => connection.manager.abort(),
  };
  return channel;
}

/**
 * A client of one service. Errors are CovenantErrors with the code and remedy of the server. Unary
 * reads are repeated while the server is unavailable.
 */
export function createClient<Desc extends DescService>(
  service: Desc,
  options: ClientOptions,
  modules: ClientModules = {},
): Client<Desc> {
  return createChannel(options, modules).client(service);
}

/** Cuts the connection of a client made by `createClient`. */
export function closeClient(client: object): void {
  channels.get(client)?.close();
}

function transportOver(
  connection: Connection,
  interceptors: NonNullable<Parameters<typeof createGrpcTransport>[0]["interceptors"]>,
) {
  return createGrpcTransport({
    baseUrl: `https://${connection.authority}`,
    sessionManager: connection.manager,
    interceptors,
    readMaxBytes: DEFAULT_LIMITS.messageBytes,
    writeMaxBytes: DEFAULT_LIMITS.messageBytes,
    acceptCompression: [],
  });
}

type AnyCall = (input: unknown, options?: CallOptions) => unknown;

/** Wraps each method: default deadline on unary calls, CovenantErrors from all. */
function typedErrors<Desc extends DescService>(
  service: Desc,
  client: Client<Desc>,
  timeoutMs: number,
): Client<Desc> {
  const calls = client as unknown as Record<string, AnyCall>;
  const entries = service.methods.map((method: DescMethod) => {
    const call = calls[method.localName]!;
    const isUnary = method.methodKind === "unary";
    const wrapped: AnyCall = (input, options) => {
      const bounded = isUnary ? { timeoutMs, ...options } : options;
      const answer = call(input, bounded);
      const rethrow = (error: unknown) => rethrowFor(error, options?.signal);
      return answer instanceof Promise
        ? answer.catch(rethrow)
        : typedStream(answer as AsyncIterable<unknown>, rethrow);
    };
    return [method.localName, wrapped];
  });
  return Object.fromEntries(entries) as Client<Desc>;
}

async function* typedStream<T>(
  messages: AsyncIterable<T>,
  rethrow: (error: unknown) => never,
): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    rethrow(error);
  }
}

function rethrowFor(error: unknown, signal: AbortSignal | undefined): never {
  const known = fromUnknown(error);
  // A server that dies resets its streams with CANCEL. Unless the caller cancelled, that is a lost connection.
  if (known.code === "COV_CANCELLED" && signal?.aborted !== true) {
    throw new CovenantError("COV_UNAVAILABLE", "The service ended the call.", { cause: known });
  }
  throw known;
}
