// The checkpoint-registry process: node services/checkpoint-registry/src/main.ts --config FILE
import { runService } from "@covenant/runtime";
import { configSchema } from "./config.ts";
import { startRegistry } from "./service.ts";

await runService({
  name: "checkpoint-registry",
  schema: configSchema,
  start: (context) => startRegistry(context),
});
