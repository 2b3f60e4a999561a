// Wires the registry: index, object store, handlers, server, and the loop that drops what has expired.
import { join } from "node:path";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import { type ObjectStore, openFileObjectStore } from "@covenant/objects";
import {
  createServer,
  openDatabase,
  type RunningService,
  type ServiceContext,
} from "@covenant/runtime";
import { Announcements } from "./announcements.ts";
import type { RegistryConfig } from "./config.ts";
import { createHandlers } from "./rpc/handlers.ts";
import type { RegistryModules } from "./rpc/modules.ts";
import { ChunkVault } from "./store/chunk-vault.ts";
import { MIGRATIONS, type RegistryTables } from "./store/schema.ts";
import { expireUploads } from "./store/upload-index.ts";

/** Time for calls in flight when the process is told to stop. */
const DRAIN_MS = 10_000;

/** Starts the registry; the caller may bring an object store of its own. */
export async function startRegistry(
  context: ServiceContext<RegistryConfig>,
  modules: { objects?: ObjectStore } = {},
): Promise<RunningService> {
  const { config, clock, logger, spans } = context;
  const { bucket } = config.objects;
  const root = config.objects.root ?? join(config.dataDirectory, "objects");
  const objects = modules.objects ?? openFileObjectStore({ root, writableBuckets: [bucket] });
  const database = openDatabase<RegistryTables>({
    path: join(config.dataDirectory, "registry.sqlite"),
    migrations: MIGRATIONS,
  });
  const vault = new ChunkVault({ bucket }, { objects, database });
  const registry: RegistryModules = {
    database,
    vault,
    announcements: new Announcements(),
    limits: config.limits,
    clock,
    logger,
  };
  const orphans = await vault.sweep();
  if (orphans > 0)
    logger.warn({ orphans }, "Removed chunks that a crash had left without an entry");
  const { listen, tls } = config;
  const server = createServer(
    { name: "checkpoint-registry", listen, tls },
    { logger, clock, spans },
  );
  server.route((router) => router.service(CheckpointRegistry, createHandlers(registry)));
  const { port } = await server.start();
  const stop = new AbortController();
  const sweeping = sweepRegularly(registry, stop.signal);
  return {
    endpoint: `${listen.host}:${port}`,
    async drain() {
      await server.drain(DRAIN_MS);
      stop.abort();
      await sweeping;
      await database.destroy();
    },
  };
}

/** Drops expired uploads and collects garbage until told to stop; a failure is logged and tried again later. */
async function sweepRegularly(modules: RegistryModules, signal: AbortSignal): Promise<void> {
  const { clock, database, limits, logger, vault } = modules;
  while (!signal.aborted) {
    try {
      const expired = await expireUploads(database, clock.nowMs());
      const freedBytes = await vault.collect();
      if (expired > 0) logger.info({ expired, freedBytes }, "Dropped expired uploads");
    } catch (error) {
      logger.error({ error }, "Could not drop expired uploads");
    }
    await clock.sleep(limits.sweepEveryMs, signal).catch(() => undefined);
  }
}
