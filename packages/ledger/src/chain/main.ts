import { runService } from "@covenant/runtime";
import { startChain } from "./chain.ts";
import { chainConfigSchema } from "./config.ts";

/** The development chain as a process of its own. */
await runService({
  name: "ledger",
  schema: chainConfigSchema,
  start: ({ config, logger, clock }) => startChain(config, { logger, clock }),
});
