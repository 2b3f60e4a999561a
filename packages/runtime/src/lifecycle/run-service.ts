/** The life of a service process: configuration, lock, start, signals, drain, exit. */
import type { z } from "zod";
import type { ConfigSchema } from "../config/introspect.ts";
import { EarlyExit, loadConfig } from "../config/load.ts";
import type { ErrorCode } from "../errors/catalogue.ts";
import { fromUnknown } from "../errors/convert.ts";
import { writeFileAtomic } from "../files/files.ts";
import type { DirectoryLock } from "../files/lock.ts";
import { lockDirectory } from "../files/lock.ts";
import type { Logger } from "../log/logger.ts";
import { createLogger, LOG_LEVELS } from "../log/logger.ts";
import type { Telemetry } from "../telemetry/provider.ts";
import { startTelemetry } from "../telemetry/provider.ts";
import type { SpanStore } from "../telemetry/span-store.ts";
import type { Clock } from "../time/clock.ts";
import { systemClock } from "../time/clock.ts";

/** Exit codes, after sysexits.h where it has one. */
export const EXIT_CODES = {
  ok: 0,
  /** An error that was reported in words. */
  failure: 1,
  /** EX_SOFTWARE: a fault of the program. */
  fault: 70,
  /** EX_CONFIG. */
  configuration: 78,
  /** A second signal, or the drain took too long. */
  forced: 130,
} as const;

/** Time that a service has to drain, unless COVENANT_DRAIN_TIMEOUT_MS says otherwise. */
export const DRAIN_TIMEOUT_MS = 30_000;

/** What a service gets. */
export interface ServiceContext<Config> {
  config: Config;
  logger: Logger;
  clock: Clock;
  /** Aborts when the process is told to stop. */
  signal: AbortSignal;
  /** The process's latest spans, for `createServer`. */
  spans: SpanStore;
}

/** What a service gives back once it runs. */
export interface RunningService {
  /** "host:port" for the ready file and the log. */
  endpoint?: string;
  /** Resolves when the service has nothing left to do: the process drains and exits with 0. */
  finished?: Promise<void>;
  /** Stops taking work, finishes or saves what is in hand. */
  drain(): Promise<void>;
}

/** A service as main.ts describes it. */
export interface ServiceDefinition<Schema extends ConfigSchema> {
  /** As in "gauntlet-validator". */
  name: string;
  schema: Schema;
  start: (context: ServiceContext<z.output<Schema>>) => Promise<RunningService>;
}

/**
 * Runs a service until it finishes or is told to stop; never returns, but exits the process.
 * SIGTERM or SIGINT drains; a second one exits at once. A configuration error exits with 78, an
 * error in words with 1, a fault with 70 after logging it. When the configuration has a
 * `dataDirectory`, it is locked for this process.
 */
export async function runService<Schema extends ConfigSchema>(
  definition: ServiceDefinition<Schema>,
): Promise<never> {
  const { name } = definition;
  const logger = createLogger({ service: name, level: levelFrom(process.env) });
  const stop = new AbortController();
  const state: ProcessState = { logger, stop, cleanups: [] };
  catchFaults(state);
  catchSignals(state);
  try {
    const service = { service: name, argv: process.argv.slice(2), env: process.env };
    const config = await loadConfig(definition.schema, service);
    const telemetry = await startTelemetry(name);
    state.telemetry = telemetry;
    state.lock = await lockFor(config);
    const { signal } = stop;
    const context = { config, logger, clock: systemClock, signal, spans: telemetry.spans };
    const running = await definition.start(context);
    await announce(running, logger);
    await stopOrFinish(running, signal);
    stop.abort(new Error("The service has finished"));
    await drain(running, logger);
    return await exit(state, EXIT_CODES.ok);
  } catch (error) {
    return await exitWithError(state, error);
  }
}

interface ProcessState {
  logger: Logger;
  stop: AbortController;
  telemetry?: Telemetry;
  lock?: DirectoryLock | undefined;
  cleanups: (() => void)[];
}

function levelFrom(env: Record<string, string | undefined>): (typeof LOG_LEVELS)[number] {
  return LOG_LEVELS.find((level) => level === env.COVENANT_LOG_LEVEL) ?? "info";
}

function catchFaults(state: ProcessState): void {
  const fault = (what: string) => (error: unknown) => {
    state.logger.fatal({ error }, what);
    releaseLock(state);
    process.exit(EXIT_CODES.fault);
  };
  process.on("uncaughtException", fault("Uncaught exception"));
  process.on("unhandledRejection", fault("Unhandled rejection"));
}

function catchSignals(state: ProcessState): void {
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    process.on(name, () => {
      if (state.stop.signal.aborted) {
        state.logger.warn({ signal: name }, "Second signal: exit without draining");
        releaseLock(state);
        process.exit(EXIT_CODES.forced);
      }
      state.logger.info({ signal: name }, "Draining; signal again to exit at once");
      state.stop.abort(new Error(`Received ${name}`));
    });
  }
}

/** Locks `dataDirectory` of any configuration that has one. */
async function lockFor(config: unknown): Promise<DirectoryLock | undefined> {
  const { dataDirectory } = config as { dataDirectory?: unknown };
  return typeof dataDirectory === "string" ? lockDirectory(dataDirectory) : undefined;
}

async function announce({ endpoint }: RunningService, logger: Logger): Promise<void> {
  const file = process.env.COVENANT_READY_FILE;
  if (file) await writeFileAtomic(file, `${JSON.stringify({ endpoint: endpoint ?? "" })}\n`);
  logger.info({ endpoint }, "Running");
}

/** A failure of `finished` is the service's failure. */
async function stopOrFinish({ finished }: RunningService, signal: AbortSignal): Promise<void> {
  let onAbort: () => void = () => undefined;
  const stopped = new Promise<void>((resolve) => {
    onAbort = resolve;
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
  // Once told to stop, the drain decides; a late failure of the loop is then no news.
  finished?.catch(() => undefined);
  await Promise.race(finished ? [finished, stopped] : [stopped]);
  signal.removeEventListener("abort", onAbort);
}

async function drain(running: RunningService, logger: Logger): Promise<void> {
  const limitMs = Number(process.env.COVENANT_DRAIN_TIMEOUT_MS ?? DRAIN_TIMEOUT_MS);
  const timer = setTimeout(() => {
    logger.error({ limitMs }, "The drain took too long: exit without waiting");
    process.exit(EXIT_CODES.forced);
  }, limitMs);
  await running.drain();
  clearTimeout(timer);
}

const CONFIGURATION_CODES = new Set<ErrorCode>([
  "COV_CONFIG_INVALID",
  "COV_DATA_DIRECTORY_IN_USE",
  "COV_DEVICE_UNAVAILABLE",
  "COV_PORT_IN_USE",
]);

async function exitWithError(state: ProcessState, error: unknown): Promise<never> {
  if (error instanceof EarlyExit) {
    await new Promise((resolve) => process.stdout.write(error.output, resolve));
    return exit(state, EXIT_CODES.ok);
  }
  const failure = fromUnknown(error);
  const { code, remedy, metadata, message } = failure;
  if (code === "COV_INTERNAL" && failure.cause !== undefined) {
    state.logger.fatal({ error }, "The service failed");
    return exit(state, EXIT_CODES.fault);
  }
  state.logger.fatal({ code, remedy, metadata }, message);
  const isConfiguration = CONFIGURATION_CODES.has(code);
  return exit(state, isConfiguration ? EXIT_CODES.configuration : EXIT_CODES.failure);
}

async function exit(state: ProcessState, code: number): Promise<never> {
  try {
    await state.telemetry?.shutdown();
  } catch (error) {
    state.logger.warn({ error }, "Spans could not be sent");
  }
  releaseLock(state);
  process.exit(code);
}

function releaseLock(state: ProcessState): void {
  try {
    state.lock?.release();
  } catch (error) {
    state.logger.warn({ error }, "The data directory's lock could not be removed");
  }
}
