// Configuration of the service.
import { deviceSettings } from "@covenant/models";
import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";
import { policySchema, rolloutsSchema, supervisedSchema } from "./settings.ts";

/** Everything that can be set, with defaults. */
export const configSchema = z.strictObject({
  listen: listenSchema,
  tls: tlsSchema,
  ledger: z.strictObject({
    url: z.string().min(1).describe("Address of the ledger"),
    netuid: z.number().int().min(0).max(65_535).describe("Subnet of the mesh"),
    timeoutMs: z.number().int().min(100).max(600_000).default(30_000),
  }),
  registryUrl: z.string().min(1).describe("Address of checkpoint-registry"),
  hotkeySeedFile: z
    .string()
    .min(1)
    .describe("File with the seed of the hotkey that signs checkpoints, in hex"),
  dataDirectory: z.string().min(1).describe("Where jobs are kept"),
  environment: z.string().min(1).default("arithmetic@1").describe("What is learned"),
  threads: z
    .number()
    .int()
    .min(1)
    .max(1024)
    .default(2)
    .describe("Threads of the engine on the CPU"),
  ...deviceSettings,
  supervised: supervisedSchema.describe("Supervised tuning"),
  policy: policySchema.describe("Reinforcement"),
  rollouts: rolloutsSchema.describe("Deadlines and bounds of rollouts"),
});

/** The service's configuration. */
export type Config = z.output<typeof configSchema>;
