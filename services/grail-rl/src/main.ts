// grail-rl: receives a checkpoint, tunes it, reinforces it with verified rollouts, releases it.
import path from "node:path";
import { PostTraining, Rollouts } from "@covenant/contracts/grail";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import { connectLedger } from "@covenant/ledger";
import {
  createClient,
  createServer,
  type RunningService,
  readHotkeyFile,
  runService,
  type ServiceContext,
} from "@covenant/runtime";
import { type Config, configSchema } from "./config.ts";
import { Desk } from "./desk/desk.ts";
import { Registrations } from "./desk/registrations.ts";
import { environmentOf, type PipelineOptions } from "./pipeline/context.ts";
import { Pipeline } from "./pipeline/pipeline.ts";
import { postTrainingHandlers } from "./rpc/post-training.ts";
import { rolloutsHandlers } from "./rpc/rollouts.ts";
import { SignalBox } from "./state/signal-box.ts";
import { Store } from "./state/store.ts";

const drainTimeoutMs = 5000;

async function start(context: ServiceContext<Config>): Promise<RunningService> {
  const { config, logger, clock, signal } = context;
  environmentOf(config.environment);
  const hotkey = await readHotkeyFile(config.hotkeySeedFile);
  const store = await Store.open(path.join(config.dataDirectory, "grail-rl.sqlite"));
  const ledger = connectLedger(config.ledger);
  const registry = createClient(CheckpointRegistry, {
    url: config.registryUrl,
    caFile: config.tls.caFile,
    tls: config.tls,
  });
  const changes = new SignalBox();
  const desk = new Desk({ ...config.rollouts, challengeDelayBlocks: 1 }, { store, ledger });
  const options: PipelineOptions = config;
  const modules = { store, desk, registry, ledger, hotkey, logger, clock, changes };
  const pipeline = await Pipeline.open(options, modules);
  const registrations = new Registrations(config.ledger, { ledger });

  const server = createServer(
    { name: "grail-rl", listen: config.listen, tls: config.tls },
    { logger, clock },
  );
  server.route((router) => {
    router.service(
      Rollouts,
      rolloutsHandlers(config.rollouts, { desk, pipeline, store, registrations, changes }),
    );
    router.service(
      PostTraining,
      postTrainingHandlers(
        {
          dataDirectory: config.dataDirectory,
          device: config,
          maxNewTokens: config.policy.maxNewTokens,
          limits: {
            supervisedSteps: config.supervised.maximumSteps,
            versions: config.policy.versions,
          },
        },
        { pipeline, store, registry, changes, logger },
      ),
    );
  });
  const { port } = await server.start();
  const running = pipeline.run(signal);
  return {
    endpoint: `${config.listen.host}:${port}`,
    async drain() {
      changes.notify();
      await Promise.all([running, server.drain(drainTimeoutMs)]);
      await store.close();
      ledger.close();
    },
  };
}

await runService({ name: "grail-rl", schema: configSchema, start });
