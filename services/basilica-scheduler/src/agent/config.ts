import { availableParallelism, totalmem } from "node:os";
import { z } from "zod";

const name = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
const durationMs = (defaultMs: number) => z.int().min(10).max(3_600_000).default(defaultMs);

const workloadSchema = z.strictObject({
  command: z
    .array(z.string().min(1))
    .min(1)
    .describe("Program and arguments; `--config FILE` is added."),
  cwd: z.string().default(".").describe("Working directory."),
  environment: z
    .record(z.string(), z.string())
    .default({})
    .describe("Variables beyond PATH, HOME, LANG, TZ, TMPDIR and OTEL_*."),
});

/** Configuration of a node agent. */
export const agentConfigSchema = z.strictObject({
  schedulerUrl: z.url({ protocol: /^https$/ }).describe("Address of the scheduler."),
  caFile: z.string().describe("Certificate authority of the mesh, PEM."),
  hotkeySeedFile: z.string().describe("File with the 32-byte seed of the node's hotkey, hex."),
  nodeId: name.optional().describe("Name of the node; derived from the hotkey when left out."),
  dataDirectory: z.string().describe("Where task directories and the node's sequence live."),
  capacity: z
    .strictObject({
      milliCpu: z
        .int()
        .min(0)
        .default(availableParallelism() * 1000),
      memoryBytes: z
        .int()
        .min(0)
        .default(Math.floor(totalmem() * 0.9)),
      milliGpu: z.int().min(0).default(0),
    })
    .prefault({})
    .describe("What the node offers, in thousandths of cores and GPUs and in bytes."),
  workloads: z.record(name, workloadSchema).describe("What the node can start, by name."),
  heartbeatMs: durationMs(5_000).describe("Pause between signs of life."),
  pollMs: durationMs(200).describe("Pause between looks at the tasks' files."),
  observeMs: durationMs(1_000).describe("Pause between looks at /proc."),
  meterMs: durationMs(5_000).describe("Pause between meter samples."),
  reconnectMinMs: durationMs(250).describe("First pause before dialling again."),
  reconnectMaxMs: durationMs(5_000).describe("Longest pause before dialling again."),
  outboxItemsMax: z
    .int()
    .min(100)
    .max(1_000_000)
    .default(20_000)
    .describe("Reports kept while the scheduler is away."),
  logs: z
    .strictObject({
      lineBytesMax: z.int().min(80).max(65_536).default(8_192),
      linesPerSecondMax: z.int().min(1).max(100_000).default(500),
      fileBytesMax: z
        .int()
        .min(65_536)
        .default(16 * 1024 * 1024),
    })
    .prefault({})
    .describe("Bounds of what is taken from a task's output."),
  endedTasksMax: z.int().min(0).default(100).describe("Ended tasks whose directories are kept."),
  onShutdown: z
    .enum(["stop", "leave"])
    .default("stop")
    .describe(
      "Whether an orderly shutdown stops the tasks. A crash always leaves them running; the next agent takes over.",
    ),
});

/** See {@link agentConfigSchema}. */
export type AgentConfig = z.infer<typeof agentConfigSchema>;
