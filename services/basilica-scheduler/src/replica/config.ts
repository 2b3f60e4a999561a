import { deviceSettings } from "@covenant/models";
import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";

const durationMs = (defaultMs: number) => z.int().min(10).max(86_400_000).default(defaultMs);
const mebibyte = 1024 * 1024;

/** Configuration of an inference replica. */
export const replicaConfigSchema = z.strictObject({
  listen: listenSchema,
  tls: tlsSchema,
  dataDirectory: z.string().min(1).describe("Where checkpoints and receipts are kept"),
  hotkeySeedFile: z
    .string()
    .min(1)
    .describe("File with the seed of the hotkey that signs receipts"),
  coldkeySeedFile: z.string().optional().describe("Not used; accepted as every participant has it"),
  registryUrl: z.url({ protocol: /^https$/ }).describe("Checkpoint registry"),
  ledger: z
    .strictObject({
      url: z.url().describe("JSON-RPC address of the ledger"),
      netuid: z.int().min(0).max(65_535).default(1).describe("Subnet"),
    })
    .optional()
    .describe("Where the randomness of completions comes from; without it, from this process"),
  runId: z.string().min(1).describe("Run whose model is served"),
  checkpointRoot: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional()
    .describe("Root of the checkpoint; the newest release of the run when left out"),
  signer: z.string().optional().describe("Address that must have signed the checkpoint"),
  model: z.string().min(1).max(128).describe("Name under which the model is served"),
  threads: z.int().min(1).max(256).optional().describe("Threads of the engine on the CPU"),
  ...deviceSettings,
  checkpointBytesMax: z
    .int()
    .min(mebibyte)
    .default(4 * 1024 * mebibyte)
    .describe("Largest checkpoint taken"),
  batchSequencesMax: z.int().min(1).max(256).default(16).describe("Sequences generated at once"),
  queueSequencesMax: z.int().min(1).max(4_096).default(128).describe("Sequences that may wait"),
  receiptsMax: z.int().min(1).max(1_000_000).default(10_000).describe("Receipts kept"),
  ledgerTimeoutMs: durationMs(5_000).describe("Longest wait for the ledger"),
});

/** See {@link replicaConfigSchema}. */
export type ReplicaConfig = z.output<typeof replicaConfigSchema>;
