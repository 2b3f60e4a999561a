// Configuration of the checkpoint registry.
import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";

const hour = 3_600_000;

/** Limits, each named as in error messages. */
export const limitsSchema = z
  .strictObject({
    maxCheckpointBytes: z
      .int()
      .positive()
      .default(2 ** 37)
      .describe("Largest checkpoint that may be uploaded, bytes"),
    maxOpenUploads: z.int().positive().default(64).describe("Uploads open at once, of all callers"),
    maxOpenUploadsPerCaller: z.int().positive().default(8).describe("Uploads open at once, of one"),
    maxStoredBytes: z
      .int()
      .positive()
      .default(2 ** 42)
      .describe("Chunks stored in all, bytes; uploads beyond it are refused"),
    uploadExpiryMs: z
      .int()
      .positive()
      .default(24 * hour)
      .describe("An upload that is not touched for so long is dropped"),
    maxWatchers: z.int().positive().default(1024).describe("Open WatchCheckpoints streams"),
    maxStreams: z.int().positive().default(256).describe("Open StreamCheckpoint streams"),
    sweepEveryMs: z.int().positive().default(60_000).describe("Pause between looks for expiry"),
  })
  .prefault({})
  .describe("Limits");

/** Values of {@link limitsSchema}. */
export type RegistryLimits = z.output<typeof limitsSchema>;

/** The whole configuration. */
export const configSchema = z.strictObject({
  listen: listenSchema,
  tls: tlsSchema,
  dataDirectory: z.string().min(1).describe("Directory of the index; only this process uses it"),
  objects: z
    .strictObject({
      root: z.string().min(1).optional().describe("Object store; dataDirectory/objects if absent"),
      bucket: z.string().default("checkpoints").describe("Bucket that holds the chunks"),
    })
    .prefault({})
    .describe("Where chunks are stored"),
  limits: limitsSchema,
});

/** Values of {@link configSchema}. */
export type RegistryConfig = z.output<typeof configSchema>;
