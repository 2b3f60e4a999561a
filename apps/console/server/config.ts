// Configuration of the console's server.
import { listenSchema, tlsSchema } from "@covenant/runtime";
import { z } from "zod";

export const consoleConfigSchema = z.strictObject({
  listen: listenSchema.describe(
    "Where the page is served, plain HTTP for this machine's browsers.",
  ),
  tls: tlsSchema.describe("Certificate of the service `console`."),
  dataDirectory: z.string().describe("Holds the process lock only."),
  services: z
    .strictObject({
      registry: z.url().describe("https address of the checkpoint-registry."),
      grail: z.url().describe("https address of grail-rl."),
      scheduler: z.url().describe("https address of the basilica-scheduler."),
    })
    .describe("Where calls go; the validator is found through the scheduler."),
  openAiUrl: z.url().describe("Address of the OpenAI-compatible endpoint."),
  requestBytesMax: z
    .number()
    .int()
    .positive()
    .default(1 << 20)
    .describe("Largest request body that is forwarded, bytes."),
});

/** Checked configuration. */
export type ConsoleConfig = z.infer<typeof consoleConfigSchema>;
