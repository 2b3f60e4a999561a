import { type Clock, CovenantError, type Logger } from "@covenant/runtime";
import type { ChainConfig } from "./config.ts";
import { createMethods } from "./methods.ts";
import { ChainNode } from "./node.ts";
import { RpcServer } from "./rpc-server.ts";
import { ChainStore } from "./store.ts";

/** Version of the chain's rules; a log made by another version may not replay. */
export const SPEC_VERSION = 1;
/** Open requests get this long to end when the chain stops. */
const CLOSE_LIMIT_MS = 500;

/** A development chain that serves. */
export interface RunningChain {
  /** host:port */
  endpoint: string;
  url: string;
  /** Rejects when the chain can no longer write its log and must stop. */
  finished: Promise<void>;
  drain(): Promise<void>;
}

/** Opens the chain's directory, makes blocks and serves JSON-RPC until `drain`. */
export async function startChain(
  config: ChainConfig,
  modules: { logger: Logger; clock: Clock },
): Promise<RunningChain> {
  const { logger, clock } = modules;
  const store = await ChainStore.open(config.dataDirectory, config.genesis);
  reportRecovery(store, logger);
  const node = new ChainNode(config, { store, clock, logger });
  const stopping = new AbortController();
  const methods = createMethods(
    { ...config, name: config.genesis.name, specVersion: SPEC_VERSION },
    { node },
  );
  const server = new RpcServer({ node, methods, logger, signal: stopping.signal });
  let port: number;
  try {
    ({ port } = await server.start(config.listen));
  } catch (cause) {
    await store.close();
    throw new CovenantError("COV_PORT_IN_USE", "the chain cannot listen", { cause });
  }
  const finished = Promise.withResolvers<void>();
  finished.promise.catch(() => undefined);
  node.start(finished.reject);
  const endpoint = `${config.listen.host}:${port}`;
  return {
    endpoint,
    url: `http://${endpoint}`,
    finished: finished.promise,
    drain: async () => {
      stopping.abort();
      await node.stop();
      await server.close(CLOSE_LIMIT_MS);
      await store.close();
      finished.resolve();
    },
  };
}

function reportRecovery(store: ChainStore, logger: Logger): void {
  const { head } = store.state;
  const { snapshotBlock, replayedBlocks, tornBytes } = store.recovery;
  if (tornBytes > 0) {
    logger.warn(
      { tornBytes, head: head.number },
      "cut off an unfinished last block: the process had died before acknowledging it",
    );
  }
  logger.info({ head: head.number, snapshotBlock, replayedBlocks }, "chain opened");
}
