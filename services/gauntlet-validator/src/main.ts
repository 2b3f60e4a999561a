import { join } from "node:path";
import { fromHex, type Hotkey, hotkeyFromSeed } from "@covenant/contracts";
import { Validator } from "@covenant/contracts/gauntlet";
import { initialParameters } from "@covenant/kernels";
import { connectLedger, type Ledger, VALIDATOR_PROTOCOL } from "@covenant/ledger";
import { openModel } from "@covenant/models";
import { openFileObjectStore } from "@covenant/objects";
import { loadRun, loadSamples, type RunSetup } from "@covenant/runs";
import {
  createServer,
  readFileLimited,
  retry,
  runService,
  type ServiceContext,
} from "@covenant/runtime";
import { Broadcaster } from "./broadcaster.ts";
import { CheckpointUploader } from "./checkpoint-uploader.ts";
import { Colleagues } from "./colleagues.ts";
import { type Config, configSchema } from "./config.ts";
import { openValidatorDatabase } from "./database.ts";
import { Evaluator } from "./evaluator.ts";
import { followColleagues } from "./follower.ts";
import type { Judge } from "./judge.ts";
import { Participants } from "./participants.ts";
import { RoundBook } from "./round-book.ts";
import { RoundLoop } from "./round-loop.ts";
import { INITIAL_LOSS_FACT } from "./round-view.ts";
import { validatorService } from "./rpc/validator.ts";
import { StateFiles } from "./state-files.ts";
import { WeightSetter } from "./weight-setter.ts";

const SEED_FILE_BYTES_MAX = 1024;
const LEDGER_TIMEOUT_MS = 30_000;
const DRAIN_TIMEOUT_MS = 10_000;
/** Scoring may take this many windows before the round is given up: slow machines must be able to finish. */
const SCORING_WINDOWS = 4;

await runService({ name: "gauntlet-validator", schema: configSchema, start });

async function start(context: ServiceContext<Config>) {
  const { config, logger, clock } = context;
  const ending = new AbortController();
  const signal = AbortSignal.any([context.signal, ending.signal]);
  const hotkey = await readHotkey(config.hotkeySeedFile);
  const coldkey = await readHotkey(config.coldkeySeedFile);
  const { netuid } = config.ledger;
  const objects = openFileObjectStore({ root: config.objects.root, writableBuckets: [] });
  const ledger = connectLedger({ url: config.ledger.url, timeoutMs: LEDGER_TIMEOUT_MS });
  const database = openValidatorDatabase(join(config.dataDirectory, "validator.sqlite"));
  const book = new RoundBook({ database });
  const patient = patience(context, signal);
  const setup = await retry(
    () => loadRun({ ledger, objects, netuid }, config.runId, config.runOwner),
    patient("the run on the ledger"),
  );
  const participants = new Participants({ netuid }, { ledger });
  const model = await openModel(setup.shape, config, { logger });
  const { tensors, parameterCount } = setup;
  const { mergedRoundsKept, dataDirectory: directory, burnShare, burnUid } = config;
  const files = new StateFiles({ directory, tensors, parameterCount, mergedRoundsKept });
  const { evaluationScale, batchSize } = config.scoring;
  const source = await loadSamples(objects, setup, "train");
  const modules = { book, files, objects, clock, logger };
  const judge: Judge = {
    config,
    hotkey,
    setup,
    rules: rulesOf(setup),
    book,
    files,
    evaluator: new Evaluator({ setup, evaluationScale, batchSize }, { model, source }),
    heldOut: await loadSamples(objects, setup, "heldOut"),
    participants,
    colleagues: new Colleagues({ caFile: config.tls.caFile, hotkey }, { participants }),
    ledger,
    objects,
    uploader:
      config.registryUrl === undefined
        ? undefined
        : new CheckpointUploader(
            { registryUrl: config.registryUrl, caFile: config.tls.caFile, hotkey, setup },
            modules,
          ),
    weights: new WeightSetter(
      { netuid, hotkey, burnShare, burnUid },
      { ledger, participants, book, clock, logger },
    ),
    broadcaster: new Broadcaster(),
    clock,
    logger,
    signal,
  };
  const loop = new RoundLoop({ judge });
  await retry(
    () => register({ ledger, netuid, hotkey, coldkey, stakeRao: BigInt(config.stakeRao) }),
    patient("registration on the ledger"),
  );
  const server = createServer(
    { name: "gauntlet-validator", listen: config.listen, tls: config.tls },
    { logger, clock },
  );
  const handlers = validatorService(judge, loop);
  server.route((router) => void router.service(Validator, handlers));
  await measureInitialLoss(judge);
  await loop.start();
  const { port } = await server.start();
  const host = config.publicHost;
  await retry(
    () => ledger.serveEndpoint({ netuid, hotkey, host, port, protocol: VALIDATOR_PROTOCOL }),
    patient("the ledger to take the endpoint"),
  );
  const running = loop.run();
  const setting = judge.weights.run(signal);
  const following = followColleagues(judge, loop);
  running.catch(() => {});
  return {
    endpoint: `${host}:${port}`,
    finished: running,
    async drain() {
      ending.abort(new Error("the validator is stopping"));
      await server.drain(DRAIN_TIMEOUT_MS);
      await Promise.allSettled([running, setting, following]);
      await database.destroy();
      model.close();
      ledger.close();
    },
  };
}

function rulesOf(setup: RunSetup) {
  const { blocksPerWindow, publishBlocks, minimumPeers } = setup.run;
  return {
    blocksPerWindow,
    publishBlocks,
    minimumPeers,
    scoringBlocks: blocksPerWindow * SCORING_WINDOWS,
    settleBlocks: Math.max(publishBlocks, 20),
  };
}

async function readHotkey(path: string): Promise<Hotkey> {
  const text = new TextDecoder().decode(await readFileLimited(path, SEED_FILE_BYTES_MAX)).trim();
  return hotkeyFromSeed(fromHex(text));
}

/** Retry options for the start: nothing can be done without, so there is no budget, only a log line. */
function patience(context: ServiceContext<Config>, signal: AbortSignal) {
  const { clock, logger } = context;
  return (what: string) => ({
    what,
    signal,
    clock,
    budgetMs: Number.POSITIVE_INFINITY,
    onWait: (target: string, error: string, delayMs: number) =>
      logger.warn({ waitsFor: target, delayMs }, `waiting for ${target}: ${error}`),
  });
}

/** Registers the validator and brings its stake to the configured amount. */
async function register(options: {
  ledger: Ledger;
  netuid: number;
  hotkey: Hotkey;
  coldkey: Hotkey;
  stakeRao: bigint;
}): Promise<void> {
  const { ledger, netuid, hotkey, coldkey, stakeRao } = options;
  await ledger.ensureRegistered({ netuid, hotkey, coldkey });
  const neurons = await ledger.metagraph(netuid);
  const own = neurons.find((neuron) => neuron.hotkey === hotkey.address)?.stakeRao ?? 0n;
  if (own >= stakeRao) return;
  const amountRao = stakeRao - own;
  await ledger.addStake({ coldkey, hotkey: hotkey.address, netuid, amountRao });
}

/** Held-out loss of the initial weights: where the run began. */
async function measureInitialLoss(judge: Judge): Promise<void> {
  const { book, setup, evaluator, heldOut, config } = judge;
  if ((await book.fact(INITIAL_LOSS_FACT)) !== undefined) return;
  const parameters = initialParameters(setup.shape, setup.run.seed);
  const loss = await evaluator.meanLoss(parameters, heldOut, config.scoring.heldOutSamples);
  await book.saveFact(INITIAL_LOSS_FACT, String(loss));
}
