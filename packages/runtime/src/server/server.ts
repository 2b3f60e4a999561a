/** The one kind of server that the mesh has. */
import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import { createConnectRouter } from "@connectrpc/connect";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";
import { createGate } from "../auth/gate.ts";
import { registerIdentity } from "../auth/identity-service.ts";
import type { RoleGrants } from "../auth/principal.ts";
import { TokenIssuer } from "../auth/tokens.ts";
import type { Listen, TlsFiles } from "../config/schemas.ts";
import { toConnectError } from "../errors/convert.ts";
import { CovenantError } from "../errors/covenant-error.ts";
import type { Logger } from "../log/logger.ts";
import { activeSpans } from "../telemetry/provider.ts";
import type { SpanStore } from "../telemetry/span-store.ts";
import type { Clock } from "../time/clock.ts";
import type { HttpHook } from "./adapter.ts";
import { createListener } from "./adapter.ts";
import { HealthState, registerHealth } from "./health.ts";
import { createServerInterceptor } from "./interceptor.ts";
import type { ServerLimits } from "./limits.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import type { Listener } from "./listener.ts";
import { openListener } from "./listener.ts";
import { registerReflection } from "./reflection.ts";
import { registerTelemetry } from "./telemetry-service.ts";

/** What a server is made of. */
export interface ServerOptions {
  /** Name in traces and logs. */
  name: string;
  listen: Listen;
  tls: TlsFiles;
  /** Extra roles by hotkey address or certificate name. */
  roles?: RoleGrants;
  /** Serves paths that are no RPC; returns false to answer 404. Proves nothing about the caller. */
  http?: HttpHook;
  limits?: Partial<ServerLimits>;
}

/** Collaborators of a server. */
export interface ServerModules {
  logger: Logger;
  clock: Clock;
  /** Spans that the Telemetry service shows; the process's own when absent. */
  spans?: SpanStore;
}

/** A server before and after its start. */
export interface Server {
  /** Adds services; only before `start`. */
  route(register: (router: ConnectRouter) => void): void;
  /** Opens the port and answers. */
  start(): Promise<{ port: number }>;
  /** Answers what is in flight for up to `timeoutMs`, refuses what is new, then closes. */
  drain(timeoutMs: number): Promise<void>;
}

/**
 * gRPC, gRPC-Web and Connect over TLS on one port. Health, reflection, Identity and Telemetry are
 * there already; every call passes the authorisation table. `start` throws COV_PORT_IN_USE.
 */
export function createServer(options: ServerOptions, modules: ServerModules): Server {
  const limits: ServerLimits = { ...DEFAULT_LIMITS, ...options.limits };
  const registrations: ((router: ConnectRouter) => void)[] = [];
  const draining = new AbortController();
  const stopped = new AbortController();
  const health = new HealthState();
  let listener: Listener | undefined;
  let drained: Promise<void> | undefined;
  const signals = { draining: draining.signal, stopped: stopped.signal };
  return {
    route: (register) => {
      if (listener) throw new Error("Routes are added before the server starts");
      registrations.push(register);
    },
    async start() {
      const router = buildRouter(options, limits, modules, signals, health, registrations);
      const http = options.http && { http: options.http };
      const onRequest = createListener({ limits, ...http }, { router, logger: modules.logger });
      const { listen, tls } = options;
      listener = await openListener({ listen, tls, limits }, { onRequest, logger: modules.logger });
      health.set(true);
      return { port: listener.port };
    },
    drain: (timeoutMs) => {
      drained ??= drain(listener, health, draining, stopped, timeoutMs);
      return drained;
    },
  };
}

async function drain(
  listener: Listener | undefined,
  health: HealthState,
  draining: AbortController,
  stopped: AbortController,
  timeoutMs: number,
): Promise<void> {
  health.set(false);
  draining.abort();
  // Handlers still running when time is up see their signal abort before connections are cut.
  const timer = setTimeout(() => stopped.abort(toConnectError(drainError())), timeoutMs);
  try {
    await listener?.close(timeoutMs);
  } finally {
    clearTimeout(timer);
    if (!stopped.signal.aborted) stopped.abort(toConnectError(drainError()));
  }
}

function drainError(): CovenantError {
  return new CovenantError("COV_DRAINING", "The server is shutting down");
}

function buildRouter(
  options: ServerOptions,
  limits: ServerLimits,
  modules: ServerModules,
  signals: { draining: AbortSignal; stopped: AbortSignal },
  health: HealthState,
  registrations: readonly ((router: ConnectRouter) => void)[],
): ConnectRouter {
  const tokens = new TokenIssuer({}, { clock: modules.clock });
  const grants = options.roles && { grants: options.roles };
  const gate = createGate({ ...grants }, { tokens });
  const interceptor = { limits, draining: signals.draining };
  const router = createConnectRouter({
    acceptCompression: [compressionGzip, compressionBrotli],
    readMaxBytes: limits.messageBytes,
    writeMaxBytes: limits.messageBytes,
    shutdownSignal: signals.stopped,
    interceptors: [createServerInterceptor(interceptor, { logger: modules.logger })],
    requestGate: (context) => {
      try {
        const isHealth = context.service.typeName === "grpc.health.v1.Health";
        if (signals.draining.aborted && !isHealth) throw drainError();
        gate(context);
      } catch (error) {
        throw toConnectError(error);
      }
    },
  });
  const services = () => [...new Set(router.handlers.map(({ service }) => service))];
  registerHealth(router, health);
  registerReflection(router, services as () => readonly DescService[]);
  registerIdentity(router, tokens);
  registerTelemetry(router, options.name, modules.spans ?? activeSpans());
  for (const register of registrations) register(router);
  health.know(services().map(({ typeName }) => typeName));
  return router;
}
