// Configuration of a rollout worker.
import { deviceSettings } from "@covenant/models";
import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";

/** Everything that can be set, with defaults. */
export const workerConfigSchema = z.strictObject({
  ledger: z.strictObject({
    url: z.string().min(1).describe("Address of the ledger"),
    netuid: z.number().int().min(0).max(65_535).describe("Subnet of the mesh"),
    timeoutMs: z.number().int().min(100).max(600_000).default(30_000),
  }),
  grailUrl: z.string().min(1).describe("Address of grail-rl"),
  registryUrl: z.string().min(1).describe("Address of checkpoint-registry"),
  tls: tlsSchema.describe("The authority's certificate is used; a worker serves nothing"),
  listen: listenSchema.describe("Unused: part of every participant's configuration"),
  hotkeySeedFile: z.string().min(1).describe("File with the seed of the worker's hotkey, in hex"),
  coldkeySeedFile: z.string().min(1).describe("File with the seed that pays registration, in hex"),
  dataDirectory: z.string().min(1).describe("Where received checkpoints are kept"),
  threads: z
    .number()
    .int()
    .min(1)
    .max(1024)
    .default(1)
    .describe("Threads of the engine on the CPU"),
  ...deviceSettings,
  capacity: z.number().int().min(1).max(64).default(32).describe("Groups asked for at once"),
  /** What the worker generates with; anything but `honest` exists to show that it is caught. */
  behaviour: z
    .enum(["honest", "substituted"])
    .default("honest")
    .describe("honest, or substituted: another model than the contract's"),
  substitutedRoot: z
    .string()
    .regex(/^([0-9a-f]{64})?$/)
    .default("")
    .describe("Checkpoint a substituted worker uses; the newest pre-training one if empty"),
  runId: z.string().min(1).describe("Run whose checkpoints are looked for"),
  exitWhenFinished: z
    .boolean()
    .default(true)
    .describe("Whether the worker ends when post-training is over"),
});

/** The worker's configuration. */
export type WorkerConfig = z.output<typeof workerConfigSchema>;
