import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";
import type { Hotkey } from "@covenant/contracts";
import { Trainer } from "@covenant/contracts/templar";
import { connectLedger, type Ledger } from "@covenant/ledger";
import { openModel } from "@covenant/models";
import { openFileObjectStore } from "@covenant/objects";
import { loadRun, loadSamples } from "@covenant/runs";
import {
  createServer,
  readHotkeyFile,
  retry,
  runService,
  type ServiceContext,
} from "@covenant/runtime";
import { behaviourOf } from "./behaviours/index.ts";
import { type Config, configSchema } from "./config.ts";
import { Gate } from "./gate.ts";
import { runPeer } from "./peer-loop.ts";
import { createRegistryClient } from "./registry-client.ts";
import { RoundFeed } from "./round-feed.ts";
import { trainerService } from "./rpc/trainer.ts";
import { StatusBoard } from "./status.ts";
import { StateFiles } from "./trainer-state.ts";
import { Validators } from "./validators.ts";

const LEDGER_TIMEOUT_MS = 30_000;
const REGISTRY_TIMEOUT_MS = 60_000;
const DRAIN_TIMEOUT_MS = 10_000;
/** Protocol number of a trainer's endpoint on the ledger. */
const TRAINER_PROTOCOL = 1;
/** A finished peer answers status calls this long before it exits, so that watchers see the end. */
const FAREWELL_MS = 500;

await runService({ name: "templar-trainer", schema: configSchema, start });

async function start(context: ServiceContext<Config>) {
  const { config, logger, clock } = context;
  const ending = new AbortController();
  const signal = AbortSignal.any([context.signal, ending.signal]);
  const hotkey = await readHotkeyFile(config.hotkeySeedFile);
  const coldkey = await readHotkeyFile(config.coldkeySeedFile);
  const { netuid } = config.ledger;
  const { bucket } = config.objects;
  const objects = openFileObjectStore({ root: config.objects.root, writableBuckets: [bucket] });
  const ledger = connectLedger({ url: config.ledger.url, timeoutMs: LEDGER_TIMEOUT_MS });
  const status = new StatusBoard({ hotkey: hotkey.address, runId: config.runId });
  const gate = new Gate();
  const patient = patience(context, status, signal);
  const setup = await retry(
    () => loadRun({ ledger, objects, netuid }, config.runId, config.runOwner),
    patient("the run on the ledger"),
  );
  const source = await loadSamples(objects, setup, "train");
  const model = await openModel(setup.shape, config, { logger });
  const server = createServer(
    { name: "templar-trainer", listen: config.listen, tls: config.tls },
    { logger, clock },
  );
  const payloadBytesMax = () => setup.payloadBytesMax;
  const handlers = trainerService({ status, gate, objects, bucket, payloadBytesMax });
  server.route((router) => void router.service(Trainer, handlers));
  const { port } = await server.start();
  const uid = await retry(
    () => register({ ledger, netuid, hotkey, coldkey, host: config.publicHost, port }),
    patient("registration on the ledger"),
  );
  const validators = new Validators(
    { netuid, hotkey, caFile: config.tls.caFile, validatorUrl: config.validatorUrl },
    { ledger },
  );
  const feed = new RoundFeed(0, { validators, clock, logger });
  const { parameterCount } = setup;
  const owner = { runId: config.runId, hotkey: hotkey.address, parameterCount };
  const registry =
    config.registryUrl === undefined
      ? undefined
      : createRegistryClient({
          url: config.registryUrl,
          caFile: config.tls.caFile,
          hotkey,
          timeoutMs: REGISTRY_TIMEOUT_MS,
        });
  const peer = {
    netuid,
    hotkey,
    bucket,
    behaviour: behaviourOf(config.behaviour),
    verifyMerge: config.verifyMerge,
    checkpointBehindRounds: config.checkpointBehindRounds,
    retryBudgetMs: config.retryBudgetMs,
    checkpointDirectory: join(config.dataDirectory, "checkpoints"),
    setup,
    source,
    model,
    files: new StateFiles(config.dataDirectory, owner),
    ledger,
    objects,
    validators,
    registry,
    feed,
    status,
    gate,
    clock,
    logger,
    signal,
  };
  const listening = feed.listen(signal);
  const playing = runPeer(peer, uid);
  const finished = playing.then(() => later(FAREWELL_MS));
  finished.catch(() => {});
  return {
    endpoint: `${config.publicHost}:${port}`,
    finished,
    async drain() {
      ending.abort(new Error("the trainer is stopping"));
      await Promise.allSettled([playing, listening]);
      await server.drain(DRAIN_TIMEOUT_MS);
      model.close();
      ledger.close();
    },
  };
}

/** Retry options for the start: nothing can be done without, so there is no budget, only a log line. */
function patience(context: ServiceContext<Config>, status: StatusBoard, signal: AbortSignal) {
  const { clock, logger } = context;
  return (what: string) => ({
    what,
    signal,
    clock,
    budgetMs: Number.POSITIVE_INFINITY,
    onWait: (target: string, error: string, delayMs: number) => {
      status.update({ reason: `waiting for ${target}: ${error}` });
      logger.warn({ waitsFor: target, delayMs }, `waiting for ${target}: ${error}`);
    },
  });
}

async function register(options: {
  ledger: Ledger;
  netuid: number;
  hotkey: Hotkey;
  coldkey: Hotkey;
  host: string;
  port: number;
}): Promise<number> {
  const { ledger, netuid, hotkey, coldkey, host, port } = options;
  const uid = await ledger.ensureRegistered({ netuid, hotkey, coldkey });
  await ledger.serveEndpoint({ netuid, hotkey, host, port, protocol: TRAINER_PROTOCOL });
  return uid;
}
