// `covenant up`: starts the mesh, submits its jobs in order, follows the run to its end.
import { rm, stat } from "node:fs/promises";
import path from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import type { Job } from "@covenant/contracts/basilica";
import { JobState } from "@covenant/contracts/basilica";
import { PostTrainingPhase, ReceiptSchema } from "@covenant/contracts/grail";
import { connectLedger, type Ledger } from "@covenant/ledger";
import { openFileObjectStore } from "@covenant/objects";
import { type Clock, CovenantError, fromUnknown, writeFileAtomic } from "@covenant/runtime";
import { fetchCheckpoint } from "../fetch-checkpoint.ts";
import { buildReport, type Report } from "../show/report.ts";
import { addEvent, closedRounds, type ShowState } from "../show/state.ts";
import { checkReceipt } from "../verify-receipt.ts";
import { baseProcesses, repositoryRoot } from "./base-processes.ts";
import { askWithReceipt, servedModels } from "./chat.ts";
import { type OperatorClients, operatorClients } from "./clients.ts";
import {
  prepareCertificates,
  type StoredHotkey,
  storedHotkey,
  type TlsFiles,
} from "./identities.ts";
import {
  inferenceJob,
  lateJoinerJob,
  pretrainingJob,
  rolloutsJob,
  type Surroundings,
} from "./jobs.ts";
import { choosePorts, type Layout, type Ports, prepareLayout } from "./layout.ts";
import { MemoryWatch } from "./memory.ts";
import type { UpOptions } from "./options.ts";
import { type CreatedRun, createRun } from "./run-builder.ts";
import { clearLeftovers, Supervisor } from "./supervisor.ts";
import { endpointOf, pretrainingFinished, type WatchContext, watchEverything } from "./watch.ts";

const netuid = 1;
const pollMs = 200;
const stopGraceMs = 8_000;
const memorySampleMs = 1_000;
/** How long a call is made again while the service behind it restarts. */
const patienceMs = 120_000;

/** What the mesh needs from the world. */
export interface MeshModules {
  clock: Clock;
  state: ShowState;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
}

/** Addresses for people. */
export interface MeshAddresses {
  console: string;
  api: string;
}

interface Cast {
  owner: StoredHotkey;
  treasury: StoredHotkey;
  node: StoredHotkey;
  validator: StoredHotkey;
  replica: StoredHotkey;
  peers: Map<string, StoredHotkey>;
  workers: Map<string, StoredHotkey>;
}

/** Removes an earlier mesh's data; refuses to remove a folder that is none. */
export async function removeOldMesh(directory: string, clock: Clock): Promise<void> {
  const exists = await stat(directory).catch(() => undefined);
  if (!exists) return;
  const isMesh = await stat(path.join(directory, "identities")).catch(() => undefined);
  if (!isMesh) {
    throw new CovenantError(
      "COV_CONFIG_INVALID",
      `${directory} exists and is not the data directory of a mesh; nothing was removed.`,
      { remedy: "Name another directory with --data, or empty this one yourself." },
    );
  }
  await clearLeftovers(await prepareLayout(directory), clock);
  await rm(directory, { recursive: true, force: true });
}

/** All keys of the show; hotkeys are needed before anything runs, to name people in the first picture. */
export async function loadCast(layout: Layout, options: UpOptions): Promise<Cast> {
  const named = async (names: string[]) =>
    new Map(
      await Promise.all(
        names.map(async (name) => [name, await storedHotkey(layout, name)] as const),
      ),
    );
  return {
    owner: await storedHotkey(layout, "owner"),
    treasury: await storedHotkey(layout, "treasury"),
    node: await storedHotkey(layout, "node-1"),
    validator: await storedHotkey(layout, "validator"),
    replica: await storedHotkey(layout, "replica-1"),
    peers: await named(options.preset.peers.map(({ name }) => name)),
    workers: await named(options.preset.workers.map(({ name }) => name)),
  };
}

/** One mesh, from start to stop. */
export class Mesh {
  readonly #options: UpOptions;
  readonly #modules: MeshModules;
  readonly #layout: Layout;
  readonly #cast: Cast;
  #ports: Ports | undefined;
  #supervisor: Supervisor | undefined;
  #memory: MemoryWatch | undefined;
  #ledger: Ledger | undefined;
  #watch: WatchContext | undefined;
  #postTrainingJobId: string | undefined;
  readonly #watching = new AbortController();
  #pretrainStartedAtMs = 0;
  #pretrainSeconds = 0;

  constructor(options: UpOptions, layout: Layout, cast: Cast, modules: MeshModules) {
    this.#options = options;
    this.#layout = layout;
    this.#cast = cast;
    this.#modules = modules;
  }

  /** Addresses for people; known once started. */
  get addresses(): MeshAddresses {
    const ports = required(this.#ports);
    return {
      console: `http://127.0.0.1:${ports.console}`,
      api: `http://127.0.0.1:${ports.api}`,
    };
  }

  /** Runs the pipeline to the chat answer; resumes where an earlier start stopped. */
  async run(): Promise<Report> {
    const { state } = this.#modules;
    const { certificates, supervisor } = await this.#startBase();
    // A base process that cannot be kept alive ends the run with its reason.
    return Promise.race([
      supervisor.failed,
      this.#pipeline(certificates.participant, certificates.operator),
    ]).finally(() => {
      state.peakRssBytes = Math.max(state.peakRssBytes, this.#memory?.peakBytes ?? 0);
    });
  }

  /** Stops every process in order; safe to call at any point. */
  async stop(): Promise<void> {
    this.#say("Stopping.");
    this.#watching.abort();
    if (this.#watch) await this.#cancelJobs(this.#watch.clients).catch(() => {});
    this.#ledger?.close();
    for (const name of [
      "console",
      "node-agent",
      "basilica-scheduler",
      "grail-rl",
      "checkpoint-registry",
      "ledger",
    ]) {
      await this.#supervisor?.stop(name, stopGraceMs);
    }
    this.#memory?.stop();
  }

  async #startBase() {
    const { clock, state } = this.#modules;
    this.#say("Starting ledger, registry, Grail, scheduler, node and console.");
    for (const name of await clearLeftovers(this.#layout, clock)) {
      addEvent(state, `${name} of an earlier start was still running and has been stopped.`);
    }
    const ports = await choosePorts(this.#layout, {
      console: this.#options.consolePort,
      api: this.#options.apiPort,
    });
    this.#ports = ports;
    const certificates = await prepareCertificates(this.#layout);
    const supervisor = new Supervisor(
      { layout: this.#layout },
      {
        clock,
        onEvent: ({ name, kind, detail }) => {
          if (kind !== "started") addEvent(state, `${name} ${kind}: ${detail}`);
        },
      },
    );
    this.#supervisor = supervisor;
    this.#memory = new MemoryWatch({
      rootPid: process.pid,
      everyMs: memorySampleMs,
      alsoPids: () => supervisor.pids().map(({ pid }) => pid),
    });
    const specs = baseProcesses({
      layout: this.#layout,
      ports,
      certificates,
      netuid,
      owner: this.#cast.owner,
      coldkey: this.#cast.treasury,
      node: this.#cast.node,
      preset: this.#options.preset,
      threads: this.#options.threads,
      device: this.#options.device,
    });
    // The ledger first: others ask it for randomness and registrations as soon as they run.
    const [ledger, ...others] = specs;
    await supervisor.start(required(ledger));
    await Promise.all(others.map((spec) => supervisor.start(spec)));
    return { certificates, supervisor };
  }

  async #pipeline(participantTls: TlsFiles, operatorTls: TlsFiles): Promise<Report> {
    const { state } = this.#modules;
    const ports = required(this.#ports);
    const ledger = connectLedger({ url: `http://127.0.0.1:${ports.ledger}`, timeoutMs: 30_000 });
    this.#ledger = ledger;
    this.#say("Training the tokenizer and writing the run.");
    const created = await this.#createRun(ledger);
    state.parameterCount = created.parameterCount;
    const clients = operatorClients(ports, operatorTls);
    this.#watch = {
      clients,
      state,
      clock: this.#modules.clock,
      signal: this.#watching.signal,
      jobs: new Map<string, Job>(),
      toldRounds: new Set(),
      postTrainingJobId: () => this.#postTrainingJobId,
    };
    void watchEverything(this.#watch);
    const mesh: Surroundings = {
      layout: this.#layout,
      ports,
      netuid,
      runId: created.config.runId,
      runOwner: this.#cast.owner.hotkey.address,
      coldkey: this.#cast.treasury,
      tls: participantTls,
      threads: this.#options.threads,
      device: this.#options.device,
    };
    await this.#pretrain(mesh, clients);
    await this.#postTrain(mesh, clients);
    const serve = await this.#serve(mesh, clients);
    state.stage = "done";
    return this.#report(created, serve);
  }

  async #createRun(ledger: Ledger): Promise<CreatedRun> {
    const { owner, treasury } = this.#cast;
    return createRun(
      {
        runId: this.#options.preset.name,
        preset: this.#options.preset,
        textFile: path.join(repositoryRoot, "data", "shakespeare.txt"),
        owner: owner.hotkey,
        coldkey: treasury.hotkey,
        netuid,
        seed: this.#options.seed,
      },
      {
        ledger,
        objects: openFileObjectStore({ root: this.#layout.objects, writableBuckets: "all" }),
      },
    );
  }

  async #pretrain(mesh: Surroundings, clients: OperatorClients): Promise<void> {
    const { state, clock } = this.#modules;
    const { preset } = this.#options;
    state.stage = "pre-training";
    this.#say("Waiting for the gang of validator and peers.");
    this.#pretrainStartedAtMs = clock.nowMs();
    const who = (name: string) => required(this.#cast.peers.get(name));
    const early = preset.peers.filter(({ role }) => role !== "late");
    await this.#submit(
      clients,
      pretrainingJob(
        mesh,
        this.#cast.validator,
        early.map((plan) => ({ plan, who: who(plan.name) })),
      ),
    );
    const late = preset.peers.filter(({ role }) => role === "late");
    await this.#until(() => closedRounds(state).length > 0);
    this.#say("Peers train, the validator judges; dishonest updates are refused and earn nothing.");
    await this.#until(() => closedRounds(state).length >= preset.lateAfterRounds);
    for (const plan of late) {
      addEvent(state, `${plan.name} joins late: it fetches the newest checkpoint and catches up.`);
      await this.#submit(clients, lateJoinerJob(mesh, plan, who(plan.name)));
    }
    await this.#until(() => pretrainingFinished(state));
    this.#pretrainSeconds = (clock.nowMs() - this.#pretrainStartedAtMs) / 1000;
  }

  async #postTrain(mesh: Surroundings, clients: OperatorClients): Promise<void> {
    const { state } = this.#modules;
    state.stage = "hand-off";
    this.#say("The final checkpoint streams from the registry to Grail.");
    const { jobId } = await this.#patiently(() =>
      clients.postTraining.startPostTraining({
        idempotencyKey: `post-${mesh.runId}`,
        runId: mesh.runId,
      }),
    );
    this.#postTrainingJobId = jobId;
    const workers = this.#options.preset.workers.map((plan) => ({
      plan,
      who: required(this.#cast.workers.get(plan.name)),
    }));
    await this.#submit(clients, rolloutsJob(mesh, workers));
    await this.#until(() => (state.postTraining?.phase ?? 0) >= PostTrainingPhase.SFT);
    state.stage = "post-training";
    this.#say("Grail fine-tunes the model, then learns from rollouts that prove their model.");
    await this.#until(() => (state.postTraining?.phase ?? 0) >= PostTrainingPhase.FINISHED);
    if (state.postTraining?.phase === PostTrainingPhase.FAILED) {
      throw new CovenantError("COV_POST_TRAINING_FAILED", state.postTraining.reason, {
        remedy: `Read ${path.join(this.#layout.logs, "grail-rl.log")}; a second start resumes.`,
      });
    }
  }

  async #serve(mesh: Surroundings, clients: OperatorClients): Promise<Report["serve"]> {
    const { state } = this.#modules;
    state.stage = "serving";
    this.#say("The released model goes into service.");
    const releaseRoot = required(state.postTraining).releaseRoot;
    await this.#submit(
      clients,
      inferenceJob(mesh, this.#cast.replica, Buffer.from(releaseRoot).toString("hex")),
    );
    const watch = required(this.#watch);
    await this.#until(() => endpointOf(watch, "inference-replica") !== undefined);
    const { api } = this.addresses;
    const { question } = this.#options.preset;
    const ask = async () => {
      const [model] = await servedModels(api);
      if (!model) throw new CovenantError("COV_UNAVAILABLE", "No model is served yet.");
      return askWithReceipt(api, model, question);
    };
    const { answer, receipt } = await this.#patiently(ask, () => true);
    const release = await this.#patiently(() => fetchCheckpoint(this.#layout.root, releaseRoot));
    const check = await checkReceipt(receipt, release, this.#cast.replica.hotkey.address);
    addEvent(state, `Receipt: ${check.explanation}`);
    const receiptFile = path.join(this.#layout.root, "receipt.pb");
    await writeFileAtomic(receiptFile, toBinary(ReceiptSchema, receipt));
    this.#say(`The model answers; its receipt is ${receiptFile}.`);
    return { question, answer, receiptVerified: check.verified };
  }

  #report(created: CreatedRun, serve: Report["serve"]): Report {
    const { state, clock } = this.#modules;
    const inner = created.config.inner;
    const tokensPerUpdate =
      (inner?.steps ?? 0) * (inner?.batchSize ?? 0) * (created.config.data?.sequenceLength ?? 0);
    state.peakRssBytes = Math.max(state.peakRssBytes, this.#memory?.peakBytes ?? 0);
    const workersOf = (behaviour: "honest" | "substituted") =>
      this.#options.preset.workers
        .filter((plan) => plan.behaviour === behaviour)
        .map(({ name }) => required(this.#cast.workers.get(name)).hotkey.address);
    return buildReport(state, {
      nowMs: clock.nowMs(),
      pretrainSeconds: this.#pretrainSeconds,
      tokensPerUpdate,
      honestWorkers: workersOf("honest"),
      substitutedWorkers: workersOf("substituted"),
      serve,
    });
  }

  /** Submits a job unless one of that name is already there: a second start finds its jobs running or ended. */
  async #submit(clients: OperatorClients, spec: ReturnType<typeof inferenceJob>): Promise<void> {
    await this.#patiently(async () => {
      const { jobs } = await clients.scheduler.listJobs({ pageSize: 200 });
      const sameName = jobs.filter((job) => job.spec?.name === spec.name);
      if (sameName.some(({ state }) => state <= JobState.RUNNING)) return;
      const idempotencyKey = `${spec.name}-${sameName.length}`;
      await clients.scheduler.submitJob({ idempotencyKey, spec });
    });
  }

  /** Makes a call again while the service behind it restarts; other errors, and an end of patience, are thrown. */
  async #patiently<T>(
    call: () => Promise<T>,
    mayPass = (error: unknown) => fromUnknown(error).retryable,
  ): Promise<T> {
    const { clock, signal } = this.#modules;
    const deadlineMs = clock.nowMs() + patienceMs;
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (signal.aborted || !mayPass(error) || clock.nowMs() > deadlineMs) throw error;
      }
      this.#failOnDeadJobs();
      await this.#pause();
    }
  }

  async #cancelJobs(clients: OperatorClients): Promise<void> {
    const { jobs } = await clients.scheduler.listJobs({ pageSize: 200 });
    const active = jobs.filter(({ state }) => state <= JobState.RUNNING);
    await Promise.all(active.map(({ id }) => clients.scheduler.cancelJob({ jobId: id })));
    const deadlineMs = this.#modules.clock.nowMs() + stopGraceMs;
    while (this.#modules.clock.nowMs() < deadlineMs) {
      const now = await clients.scheduler.listJobs({ pageSize: 200 });
      if (now.jobs.every(({ state }) => state > JobState.RUNNING && state !== JobState.CANCELLING))
        return;
      await this.#modules.clock.sleep(pollMs);
    }
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      this.#failOnDeadJobs();
      await this.#pause();
    }
  }

  /** Waits for nothing that can no longer come. */
  #failOnDeadJobs(): void {
    for (const job of this.#watch?.jobs.values() ?? []) {
      if (job.state !== JobState.FAILED) continue;
      throw new CovenantError("COV_JOB_FAILED", `Job ${job.spec?.name} failed: ${job.reason}`, {
        remedy: `Read the logs below ${this.#layout.root}; a second start tries again.`,
      });
    }
  }

  async #pause(): Promise<void> {
    await this.#modules.clock.sleep(pollMs, this.#modules.signal);
    this.#modules.state.peakRssBytes = this.#memory?.peakBytes ?? 0;
  }

  #say(activity: string): void {
    this.#modules.state.activity = activity;
  }
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("used before it was set");
  return value;
}
