import { listenSchema } from "@covenant/runtime";
import { z } from "zod";
import { genesisSchema } from "../state/genesis.ts";

/** Configuration of the development chain's process. */
export const chainConfigSchema = z.strictObject({
  listen: listenSchema.prefault({}),
  /** Where the chain lives; one process at a time. */
  dataDirectory: z.string().min(1),
  /** Time from block to block; 0 makes blocks only on demand. */
  blockTimeMs: z.number().int().min(0).max(600_000).default(250),
  /** Offers `dev_produceBlocks` to whoever can reach the port: for tests. */
  allowProduce: z.boolean().default(false),
  /** Makes block hashes, and so the randomness, predictable: for tests that replay. */
  entropySeed: z.string().max(256).optional(),
  /** Most extrinsics that wait for a block. */
  poolLimit: z.number().int().min(1).max(65_536).default(4096),
  /** Most extrinsics in one block. */
  blockExtrinsicsMax: z.number().int().min(1).max(4096).default(1024),
  snapshotIntervalBlocks: z.number().int().min(1).max(1_000_000).default(2000),
  genesis: genesisSchema.prefault({}),
});

/** A checked configuration. */
export type ChainConfig = z.output<typeof chainConfigSchema>;
