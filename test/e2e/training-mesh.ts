// A training mesh of real processes in a directory of its own: chain, object store, registry, validator, peers.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { create } from "@bufbuild/protobuf";
import {
  canonicalBytes,
  type Hotkey,
  hotkeyFromSeed,
  sha256,
  signMessage,
  toHex,
} from "@covenant/contracts";
import { ModelConfigSchema } from "@covenant/contracts/common";
import { type Round, Validator } from "@covenant/contracts/gauntlet";
import { DataSetSchema, RunConfigSchema } from "@covenant/contracts/templar";
import { initialParameters, stateRoot, tensorTable } from "@covenant/kernels";
import { connectLedger, type Ledger } from "@covenant/ledger";
import { buildDataSet, Tokenizer, trainTokenizer } from "@covenant/models";
import { openFileObjectStore } from "@covenant/objects";
import { createClient, createDevelopmentCa, issueCertificate } from "@covenant/runtime";
import { createRunConfig, RUN_CONFIG_KEY, runBucket, runConfigHash } from "@covenant/sparseloco";

const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const netuid = 3;
const vocabSize = 300;
const sequenceLength = 32;
const textBytes = 120_000;
const readyTimeoutMs = 60_000;
/** More stake than anybody else in the test has. */
const validatorStakeRao = "1000000000000";

/** The processes' entry points. */
const entries = {
  ledger: "packages/ledger/src/chain/main.ts",
  registry: "services/checkpoint-registry/src/main.ts",
  validator: "services/gauntlet-validator/src/main.ts",
  trainer: "services/templar-trainer/src/main.ts",
};

/** Waits a little; tests poll, they never measure. */
export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Waits until `look` gives something; the deadline names what never came. */
export async function until<T>(
  what: string,
  deadlineMs: number,
  look: () => Promise<T | undefined>,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms in vain for ${what}`);
    await pause(100);
  }
}

type Running = {
  child: ChildProcess;
  exited: Promise<number>;
  endpoint: string;
  log: () => string;
};

/** What a test decides about its run. */
export type MeshOptions = { rounds: number; minimumPeers: number; checkpointEveryRounds: number };

/** The mesh; every process can be killed and started again with the same data. */
export class TrainingMesh {
  readonly #directory: string;
  readonly #running = new Map<string, Running>();
  readonly #treasury = key("treasury");
  readonly #owner = key("owner");
  readonly #options: MeshOptions;
  #tls!: { certFile: string; keyFile: string; caFile: string };
  #ledgerPort = 0;

  constructor(directory: string, options: MeshOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  /** Starts chain and registry, builds data and run, commits it. */
  async prepare(): Promise<void> {
    const pki = this.#path("pki");
    await createDevelopmentCa(pki);
    this.#tls = await issueCertificate(pki, "participant");
    await this.#startLedger();
    await this.#start("registry", entries.registry, {
      listen: { host: "127.0.0.1", port: 0 },
      tls: await issueCertificate(pki, "checkpoint-registry"),
      dataDirectory: this.#path("registry"),
    });
    const ledger = this.ledger();
    const coldkey = this.#treasury;
    await ledger.ensureRegistered({ netuid, hotkey: this.#owner, coldkey });
    const hash = await this.#writeRun();
    await ledger.setCommitment({ netuid, hotkey: this.#owner, fields: [hash] });
    ledger.close();
  }

  /** A new connection to the chain; the caller closes it. */
  ledger(): Ledger {
    return connectLedger({ url: `http://${this.#endpoint("ledger")}`, timeoutMs: 20_000 });
  }

  /** Starts a validator with so much stake. */
  async startValidator(name = "validator", stakeRao = validatorStakeRao): Promise<void> {
    await this.#start(name, entries.validator, {
      ...(await this.#participant(name)),
      stakeRao,
      scoring: { heldOutSamples: 16 },
    });
  }

  /** Starts a peer. */
  async startPeer(name: string, behaviour: string, more: object = {}): Promise<void> {
    const config = { ...(await this.#participant(name)), behaviour, ...more };
    await this.#start(name, entries.trainer, config);
  }

  /** A client of a validator, with the hotkey of a bystander. */
  validator(name = "validator") {
    return createClient(Validator, {
      url: `https://${this.#endpoint(name)}`,
      caFile: this.#tls.caFile,
      hotkey: key("bystander"),
      timeoutMs: 20_000,
    });
  }

  /** A round as a validator sees it; undefined while it cannot be had. */
  async round(number: number, name = "validator"): Promise<Round | undefined> {
    try {
      return (await this.validator(name).getRound({ round: number })).round;
    } catch {
      return undefined;
    }
  }

  /** Address of a participant's hotkey. */
  address(name: string): string {
    return key(name).address;
  }

  /** Directory of a process. */
  dataOf(name: string): string {
    return this.#path(name);
  }

  /** Kills a process without warning. */
  async kill(name: string): Promise<void> {
    const running = this.#running.get(name)!;
    running.child.kill("SIGKILL");
    await running.exited;
  }

  /** Exit code of a process, once it has ended. */
  exited(name: string): Promise<number> {
    return this.#running.get(name)!.exited;
  }

  /** What a process has written to its log. */
  log(name: string): string {
    return this.#running.get(name)?.log() ?? "";
  }

  /** Ends everything. */
  async stop(): Promise<void> {
    const all = [...this.#running.values()];
    for (const { child } of all) child.kill("SIGKILL");
    await Promise.all(all.map(({ exited }) => exited));
  }

  async #startLedger(): Promise<void> {
    await this.#start("ledger", entries.ledger, {
      listen: { host: "127.0.0.1", port: this.#ledgerPort },
      dataDirectory: this.#path("ledger"),
      blockTimeMs: 100,
      genesis: {
        balances: { [this.#treasury.address]: 1_000_000 },
        subnets: [{ netuid, preset: "development", owner: this.#treasury.address }],
      },
    });
    this.#ledgerPort = Number(this.#endpoint("ledger").split(":")[1]);
  }

  async #participant(name: string) {
    const seedFile = async (who: string) => {
      const file = this.#path(`${who}.seed`);
      await writeFile(file, toHex(seedOf(who)), { mode: 0o600 });
      return file;
    };
    return {
      listen: { host: "127.0.0.1", port: 0 },
      tls: this.#tls,
      ledger: { url: `http://${this.#endpoint("ledger")}`, netuid },
      objects: { root: this.#path("objects"), bucket: `peer-${name}` },
      hotkeySeedFile: await seedFile(name),
      coldkeySeedFile: await seedFile("treasury"),
      dataDirectory: this.#path(name),
      runId: "test",
      runOwner: this.#owner.address,
      registryUrl: `https://${this.#endpoint("registry")}`,
      threads: 1,
    };
  }

  async #writeRun(): Promise<Uint8Array> {
    const text = readFileSync(path.join(repository, "data/shakespeare.txt"), "utf8");
    const part = text.slice(0, textBytes);
    const json = trainTokenizer(part, { vocabSize });
    const data = buildDataSet(part, Tokenizer.fromJson(json), {
      sequenceLength,
      shardSamples: 1024,
      heldOutShare: 0.05,
    });
    const bucket = runBucket("test");
    const root = this.#path("objects");
    const objects = openFileObjectStore({ root, writableBuckets: [bucket] });
    const put = async (side: string, shards: typeof data.train) => {
      for (const [i, shard] of shards.entries()) {
        await objects.put(bucket, `${side}/${i}`, shard.data);
      }
      return shards.map(({ sha256: hash, sampleCount }, i) => {
        return { key: `${side}/${i}`, sha256: hash, sampleCount };
      });
    };
    const tokenizer = new TextEncoder().encode(JSON.stringify(json));
    await objects.put(bucket, "tokenizer.json", tokenizer);
    const model = create(ModelConfigSchema, {
      vocabSize,
      hiddenSize: 32,
      intermediateSize: 64,
      numHiddenLayers: 2,
      numAttentionHeads: 2,
      numKeyValueHeads: 2,
      maxPositionEmbeddings: 64,
      ropeTheta: 10_000,
      rmsNormEps: 1e-5,
      tieWordEmbeddings: true,
    });
    const run = createRunConfig({
      runId: "test",
      model,
      data: create(DataSetSchema, {
        bucket,
        train: await put("train", data.train),
        heldOut: await put("held-out", data.heldOut),
        sequenceLength,
        tokenizerKey: "tokenizer.json",
        tokenizerSha256: sha256(tokenizer),
        heldOutBytesPerToken: data.heldOutBytesPerToken,
        licence: "CC0-1.0",
      }),
      genesisStateRoot: await genesisRoot(),
      inner: { steps: 10, batchSize: 8, warmupSteps: 4 },
      blocksPerWindow: 1200,
      publishBlocks: 20,
      ...this.#options,
    });
    run.signature = signMessage(RunConfigSchema, run, this.#owner);
    await objects.put(bucket, RUN_CONFIG_KEY, canonicalBytes(RunConfigSchema, run));
    return runConfigHash(run);
  }

  #path(name: string): string {
    return path.join(this.#directory, name);
  }

  #endpoint(name: string): string {
    const running = this.#running.get(name);
    if (running === undefined) throw new Error(`${name} has not been started`);
    return running.endpoint;
  }

  async #start(name: string, entry: string, config: object): Promise<void> {
    await mkdir(this.#path("ready"), { recursive: true });
    const configFile = this.#path(`${name}.json`);
    const readyFile = this.#path(`ready/${name}.json`);
    await rm(readyFile, { force: true });
    await writeFile(configFile, JSON.stringify(config));
    const child = spawn(process.execPath, [path.join(repository, entry), "--config", configFile], {
      env: { ...process.env, COVENANT_READY_FILE: readyFile, NODE_NO_WARNINGS: "1" },
      stdio: ["ignore", "ignore", "pipe"],
    });
    const lines: string[] = [];
    child.stderr!.on("data", (piece: Buffer) => lines.push(piece.toString()));
    const exited = new Promise<number>((resolve) => {
      child.once("exit", (code, signal) => resolve(signal === null ? (code ?? 1) : 128));
    });
    const log = () => lines.join("");
    const endpoint = await until(`${name} to serve`, readyTimeoutMs, async () => {
      if (child.exitCode !== null) throw new Error(`${name} ended: ${log()}`);
      const text = await readFile(readyFile, "utf8").catch(() => "");
      return text === "" ? undefined : (JSON.parse(text) as { endpoint: string }).endpoint;
    });
    this.#running.set(name, { child, exited, endpoint, log });
  }
}

const shape = {
  vocabSize,
  hiddenSize: 32,
  intermediateSize: 64,
  layerCount: 2,
  headCount: 2,
  kvHeadCount: 2,
  maxPositions: 64,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};

function genesisRoot(): Promise<Uint8Array> {
  return stateRoot(initialParameters(shape, 42n), tensorTable(shape));
}

function seedOf(name: string): Uint8Array {
  return sha256(new TextEncoder().encode(`test ${name}`));
}

function key(name: string): Hotkey {
  return hotkeyFromSeed(seedOf(name));
}
