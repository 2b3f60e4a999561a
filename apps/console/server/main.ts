// Serves the page and forwards its calls to the services over mutual TLS, as the service `console`.
import { createServer } from "node:http";
import { runService } from "@covenant/runtime";
import { consoleConfigSchema } from "./config.ts";
import { findValidator } from "./find-validator.ts";
import { createForwarder } from "./forward.ts";
import { serveStatic } from "./static-files.ts";

const closeGraceMs = 2_000;

await runService({
  name: "console",
  schema: consoleConfigSchema,
  start: async ({ config, logger }) => {
    const forward = createForwarder(
      {
        tls: config.tls,
        services: config.services,
        openAiUrl: config.openAiUrl,
        requestBytesMax: config.requestBytesMax,
      },
      { logger, findValidator: findValidator(config) },
    );
    const server = createServer((request, response) => {
      if (forward.handle(request, response)) return;
      serveStatic(request, response).catch((error: unknown) => {
        logger.warn({ error }, "A file of the page could not be sent");
        response.destroy();
      });
    });
    // A page keeps a few streams open; more connections than this is not a person.
    server.maxConnections = 512;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(config.listen.port, config.listen.host, resolve);
    });
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : config.listen.port;
    return {
      endpoint: `${config.listen.host}:${port}`,
      drain: async () => {
        server.close();
        forward.close();
        const timer = setTimeout(() => server.closeAllConnections(), closeGraceMs);
        server.closeIdleConnections();
        await new Promise<void>((resolve) => server.once("close", resolve));
        clearTimeout(timer);
      },
    };
  },
});
