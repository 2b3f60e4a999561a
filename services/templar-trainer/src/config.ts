import { deviceSettings } from "@covenant/models";
import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";
import { BEHAVIOUR_NAMES } from "./behaviours/index.ts";

/** Configuration of a training peer; unknown keys are errors. */
export const configSchema = z.strictObject({
  listen: listenSchema,
  tls: tlsSchema,
  /** Host under which the peer announces its own service on the ledger. */
  publicHost: z.string().min(1).default("127.0.0.1").describe("Host written to the ledger"),
  ledger: z.strictObject({
    url: z.string().min(1).describe("Address of the ledger"),
    netuid: z.int().min(0).max(65_535).describe("Subnet"),
  }),
  objects: z.strictObject({
    root: z.string().min(1).describe("Directory of the object store"),
    bucket: z.string().min(1).describe("The peer's own bucket"),
  }),
  hotkeySeedFile: z.string().min(1).describe("File with the hotkey's seed, 64 hex digits"),
  coldkeySeedFile: z.string().min(1).describe("File with the coldkey's seed, 64 hex digits"),
  dataDirectory: z.string().min(1).describe("Where the peer keeps its state"),
  runId: z.string().min(1).describe("The run to take part in"),
  runOwner: z.string().min(1).describe("Hotkey address of the run's owner"),
  registryUrl: z.string().optional().describe("Checkpoint registry, for joining late"),
  validatorUrl: z.string().optional().describe("Validator to follow; default: from the ledger"),
  behaviour: z.enum(BEHAVIOUR_NAMES).default("honest").describe("How the peer makes updates"),
  verifyMerge: z.boolean().default(false).describe("Recompute merged updates from their parts"),
  threads: z.int().min(1).max(256).default(1).describe("Threads of the engine on the CPU"),
  ...deviceSettings,
  compute: z
    .enum(["f32", "bf16"])
    .default("f32")
    .describe("Arithmetic of training; f32 has the same bits on every device"),
  checkpointBehindRounds: z
    .int()
    .min(1)
    .default(3)
    .describe("Rounds behind from which a checkpoint is preferred to replaying"),
  retryBudgetMs: z
    .int()
    .min(1000)
    .default(120_000)
    .describe("How long a failing call is repeated before the round is begun anew"),
});

/** A checked configuration. */
export type Config = z.output<typeof configSchema>;
