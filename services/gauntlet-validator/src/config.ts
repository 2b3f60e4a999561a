import { deviceSettings } from "@covenant/models";
import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";

/** Configuration of a validator; unknown keys are errors. */
export const configSchema = z.strictObject({
  listen: listenSchema,
  tls: tlsSchema,
  publicHost: z.string().min(1).default("127.0.0.1").describe("Host written to the ledger"),
  ledger: z.strictObject({
    url: z.string().min(1).describe("Address of the ledger"),
    netuid: z.int().min(0).max(65_535).describe("Subnet"),
  }),
  objects: z.strictObject({
    root: z.string().min(1).describe("Directory of the object store"),
    bucket: z.string().min(1).optional().describe("Not used: a validator only reads"),
  }),
  hotkeySeedFile: z.string().min(1).describe("File with the hotkey's seed, 64 hex digits"),
  coldkeySeedFile: z.string().min(1).describe("File with the coldkey's seed, 64 hex digits"),
  dataDirectory: z.string().min(1).describe("Where the validator keeps its state"),
  runId: z.string().min(1).describe("The run to judge"),
  runOwner: z.string().min(1).describe("Hotkey address of the run's owner"),
  registryUrl: z.string().optional().describe("Checkpoint registry that takes checkpoints"),
  threads: z.int().min(1).max(256).default(1).describe("Threads of the engine on the CPU"),
  ...deviceSettings,
  stakeRao: z
    .string()
    .regex(/^\d{1,19}$/)
    .default("0")
    .describe("Stake the validator makes sure to have, in rao"),
  scoring: z
    .strictObject({
      samplesPerSet: z.int().min(2).max(4096).default(8).describe("First samples of each set"),
      samplesPerSetMax: z.int().min(2).max(4096).default(32).describe("Most samples of each set"),
      evaluationScale: z
        .number()
        .positive()
        .max(1)
        .default(1)
        .describe("Share of an update that is applied to measure it"),
      heldOutSamples: z.int().min(1).max(65_536).default(64).describe("Held-out samples per round"),
      batchSize: z.int().min(1).max(4096).default(16).describe("Sequences per forward pass"),
    })
    .prefault({}),
  burnShare: z.number().min(0).max(1).default(0).describe("Share of the weights that is burnt"),
  burnUid: z.int().min(0).max(65_535).default(0).describe("Uid that stands for burning"),
  mergedRoundsKept: z
    .int()
    .min(1)
    .max(100_000)
    .default(64)
    .describe("Merged updates kept for peers that catch up"),
  fetchBudgetMs: z.int().min(0).default(10_000).describe("How long a failing fetch is repeated"),
});

/** A checked configuration. */
export type Config = z.output<typeof configSchema>;
