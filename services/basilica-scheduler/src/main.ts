import { Agents, Billing, Inference, Scheduler } from "@covenant/contracts/basilica";
import { createClient, createServer, runService, writeFileAtomic } from "@covenant/runtime";
import { schedulerConfigSchema } from "./config.ts";
import { ReplicaDirectory } from "./inference/replica-directory.ts";
import { InferenceRouter } from "./inference/router.ts";
import { loadApiKeys } from "./openai/api-keys.ts";
import { OpenAiServer } from "./openai/server.ts";
import { agentsService } from "./rpc/agents-service.ts";
import { billingService } from "./rpc/billing-service.ts";
import { inferenceService } from "./rpc/inference-service.ts";
import { schedulerService } from "./rpc/scheduler-service.ts";
import { startScheduler } from "./scheduler/start-scheduler.ts";

const name = "basilica-scheduler";
const drainMs = 5_000;

await runService({
  name,
  schema: schedulerConfigSchema,
  async start({ config, logger, clock, spans }) {
    const { tls, listen, openAi } = config;
    const core = await startScheduler(config, { clock, logger });
    const directory = new ReplicaDirectory(config.inference, {
      jobs: () => core.board.records(),
      connect: (endpoint) =>
        createClient(Inference, { url: `https://${endpoint}`, caFile: tls.caFile, tls }),
      clock,
      logger,
    });
    const router = new InferenceRouter(config.inference, { directory, logger });
    const server = createServer({ name, listen, tls }, { logger, clock, spans });
    server.route((routes) => {
      const { board, logs, loop, sessions } = core;
      const silenceMs = config.nodeSilenceMs;
      routes.service(Scheduler, schedulerService({ board, logs }));
      routes.service(Agents, agentsService({ loop, sessions, logs, silenceMs, logger }));
      routes.service(Billing, billingService({ board }));
      routes.service(Inference, inferenceService({ router }));
    });
    const { port } = await server.start();
    let endpoint: OpenAiServer | undefined;
    if (openAi.enabled) {
      const checkKey = await loadApiKeys(openAi.apiKeysFile);
      endpoint = new OpenAiServer(openAi, { router, clock, checkKey, logger });
      const address = await endpoint.start();
      logger.info({ address: `http://${address}/v1` }, "OpenAI endpoint is open");
      if (openAi.readyFile !== undefined) {
        await writeFileAtomic(openAi.readyFile, JSON.stringify({ endpoint: address }));
      }
    }
    return {
      endpoint: `${listen.host}:${port}`,
      async drain() {
        core.sessions.closeAll();
        await Promise.all([endpoint?.drain(drainMs), server.drain(drainMs)]);
        await core.stop();
      },
    };
  },
});
