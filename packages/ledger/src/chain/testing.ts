import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, systemClock } from "@covenant/runtime";
import type { Hyperparameters } from "../state/hyperparameters.ts";
import { testGenesis } from "../state/testing.ts";
import { type RunningChain, startChain } from "./chain.ts";
import { type ChainConfig, chainConfigSchema } from "./config.ts";

/** A chain that logs nothing. */
export const silentLogger = createLogger({ service: "ledger-test", level: "silent" });

/** What a test may choose about its chain. */
export interface TestChainOptions {
  dataDirectory: string;
  hyperparameters?: Partial<Hyperparameters>;
  /** 0: blocks only on demand. */
  blockTimeMs?: number;
  port?: number;
  snapshotIntervalBlocks?: number;
  name?: string;
}

/** Configuration of a chain for tests: on demand, predictable, one subnet. */
export function testConfig(options: TestChainOptions): ChainConfig {
  const genesis = testGenesis(options.hyperparameters);
  return chainConfigSchema.parse({
    listen: { port: options.port ?? 0 },
    dataDirectory: options.dataDirectory,
    blockTimeMs: options.blockTimeMs ?? 0,
    allowProduce: true,
    entropySeed: "ledger-test",
    snapshotIntervalBlocks: options.snapshotIntervalBlocks ?? 1000,
    genesis: { ...genesis, name: options.name ?? "ledger-test" },
  });
}

/** Starts a chain in this process. */
export function startTestChain(options: TestChainOptions): Promise<RunningChain> {
  return startChain(testConfig(options), { logger: silentLogger, clock: systemClock });
}

/** Runs `work` with an empty directory that is removed afterwards. */
export async function withDirectory<Value>(
  work: (directory: string) => Promise<Value>,
): Promise<Value> {
  const directory = await mkdtemp(join(tmpdir(), "covenant-ledger-"));
  try {
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
