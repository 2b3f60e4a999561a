// Rollout worker: a participant that generates for contracts of grail-rl.
import { Rollouts } from "@covenant/contracts/grail";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import { connectLedger } from "@covenant/ledger";
import {
  createClient,
  type RunningService,
  readHotkeyFile,
  runService,
  type ServiceContext,
} from "@covenant/runtime";
import { type WorkerConfig, workerConfigSchema } from "./config.ts";
import { WorkerEngine } from "./engine.ts";
import { runWorker } from "./loop.ts";

async function start(context: ServiceContext<WorkerConfig>): Promise<RunningService> {
  const { config, logger, clock, signal } = context;
  const hotkey = await readHotkeyFile(config.hotkeySeedFile);
  const coldkey = await readHotkeyFile(config.coldkeySeedFile);
  const ledger = connectLedger(config.ledger);
  const { netuid } = config.ledger;
  const uid = await ledger.ensureRegistered({ netuid, hotkey, coldkey });
  logger.info({ uid, hotkey: hotkey.address, behaviour: config.behaviour }, "worker registered");
  const { caFile } = config.tls;
  const rollouts = createClient(Rollouts, { url: config.grailUrl, caFile, hotkey });
  const registry = createClient(CheckpointRegistry, { url: config.registryUrl, caFile, hotkey });
  const engine = new WorkerEngine(config, { registry, logger });
  const modules = { rollouts, registry, ledger, engine, hotkey, clock, logger };
  const finished = runWorker(config, modules, signal);
  return {
    finished,
    async drain() {
      await finished;
      engine.close();
      ledger.close();
    },
  };
}

await runService({ name: "rollout-worker", schema: workerConfigSchema, start });
