import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";

const durationMs = (defaultMs: number) => z.int().min(10).max(86_400_000).default(defaultMs);

/** Configuration of the scheduler. */
export const schedulerConfigSchema = z.strictObject({
  listen: listenSchema,
  tls: tlsSchema,
  dataDirectory: z.string().min(1).describe("Where jobs, use and logs are kept"),
  tickMs: durationMs(250).describe("Pause between looks at deadlines"),
  nodeSilenceMs: durationMs(20_000).describe("A node silent for this long is disconnected"),
  nodeLostAfterMs: durationMs(45_000).describe(
    "A node away for this long is lost, and its tasks are placed anew",
  ),
  endedJobsMax: z.int().min(10).max(100_000).default(1_000).describe("Ended jobs that are kept"),
  restarts: z
    .strictObject({
      backoffBaseMs: durationMs(1_000).describe("Pause before the first restart; doubles"),
      backoffMaxMs: durationMs(30_000).describe("Longest pause before a restart"),
      lossRestartsMax: z.int().min(0).default(20).describe("Restarts after lost nodes, per task"),
      platformRestartsMax: z.int().min(0).default(3).describe("Restarts after failed starts"),
    })
    .prefault({})
    .describe("Restart policy"),
  logFileBytes: z
    .int()
    .min(65_536)
    .default(8 * 1024 * 1024)
    .describe("Size at which the log of a task is rotated, once"),
  inference: z
    .strictObject({
      workloads: z
        .array(z.string())
        .default(["inference-replica"])
        .describe("Workloads whose running tasks serve models"),
      requestTimeoutMs: durationMs(600_000).describe("Longest time one completion may take"),
    })
    .prefault({})
    .describe("How models are served"),
  openAi: z
    .strictObject({
      enabled: z
        .boolean()
        .default(true)
        .describe("Whether the OpenAI-compatible endpoint is served"),
      listen: listenSchema,
      readyFile: z.string().optional().describe('File that receives {"endpoint":"host:port"}'),
      apiKeysFile: z
        .string()
        .optional()
        .describe("File with one API key a line; without it no key is asked for"),
      allowedOrigins: z
        .array(z.string())
        .default([])
        .describe("Origins of web pages that may call; loopback origins always may"),
      bodyBytesMax: z
        .int()
        .min(1_024)
        .default(4 * 1024 * 1024)
        .describe("Largest request body"),
      requestsMax: z.int().min(1).default(256).describe("Requests served at once"),
    })
    .prefault({})
    .describe("OpenAI-compatible endpoint, plain HTTP for loopback or behind a proxy"),
});

/** See {@link schedulerConfigSchema}. */
export type SchedulerConfig = z.output<typeof schedulerConfigSchema>;
