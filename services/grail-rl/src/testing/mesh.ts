// A small mesh of real processes for tests: ledger, registry, grail-rl and workers, each to be killed.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { buildManifest, exportCheckpoint, uploadCheckpoint } from "@covenant/checkpoints";
import { type Hotkey, hotkeyFromSeed, toHex } from "@covenant/contracts";
import { CheckpointRegistry, CheckpointStage } from "@covenant/contracts/registry";
import { initialParameters, type ModelShape } from "@covenant/kernels";
import { Tokenizer, trainTokenizer } from "@covenant/models";
import {
  closeClient,
  createClient,
  createDevelopmentCa,
  issueCertificate,
} from "@covenant/runtime";

const netuid = 7;
const repository = new URL("../../../../", import.meta.url).pathname;
const entries = {
  ledger: "packages/ledger/src/chain/main.ts",
  registry: "services/checkpoint-registry/src/main.ts",
  grail: "services/grail-rl/src/main.ts",
  worker: "services/grail-rl/src/worker/main.ts",
};

/** A process of the mesh. */
export interface MeshProcess {
  /** "host:port", or empty for processes that serve nothing. */
  endpoint: string;
  /** Resolves with the exit code. */
  exited: Promise<number | null>;
  kill(signal: NodeJS.Signals): Promise<void>;
}

/** Smallest model that learns the form of answers within seconds. */
export const tinyShape: ModelShape = {
  vocabSize: 300,
  hiddenSize: 64,
  intermediateSize: 128,
  layerCount: 2,
  headCount: 2,
  kvHeadCount: 2,
  maxPositions: 64,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};

/** Directory, certificates and processes of one test. */
export class TestGrailMesh {
  readonly directory: string;
  readonly #processes: { child: ChildProcess; exited: Promise<unknown> }[] = [];
  readonly #tls: Record<string, { certFile: string; keyFile: string; caFile: string }>;
  readonly owner = hotkeyFromSeed(new Uint8Array(32).fill(1));
  readonly coldkey = hotkeyFromSeed(new Uint8Array(32).fill(2));

  private constructor(directory: string, tls: TestGrailMesh["tls"]) {
    this.directory = directory;
    this.#tls = tls;
  }

  /** Makes the directory and the certificates. */
  static async open(): Promise<TestGrailMesh> {
    const directory = await mkdtemp(path.join(tmpdir(), "covenant-grail-"));
    const authority = path.join(directory, "ca");
    await createDevelopmentCa(authority);
    const tls: TestGrailMesh["tls"] = {};
    for (const name of ["checkpoint-registry", "grail-rl", "operator"]) {
      tls[name] = await issueCertificate(authority, name);
    }
    return new TestGrailMesh(directory, tls);
  }

  /** TLS files by name of the certificate. */
  get tls() {
    return this.#tls;
  }

  /** Ends everything and removes the directory. */
  async close(): Promise<void> {
    for (const { child } of this.#processes) child.kill("SIGKILL");
    await Promise.all(this.#processes.map(({ exited }) => exited));
    await rm(this.directory, { recursive: true, force: true });
  }

  startLedger(): Promise<MeshProcess> {
    return this.#start("ledger", "ledger", {
      dataDirectory: path.join(this.directory, "ledger"),
      blockTimeMs: 100,
      genesis: {
        balances: { [this.coldkey.address]: 1_000_000 },
        subnets: [{ netuid, preset: "development", owner: this.owner.address }],
      },
    });
  }

  startRegistry(): Promise<MeshProcess> {
    const dataDirectory = path.join(this.directory, "registry");
    return this.#start("registry", "registry", {
      tls: this.#tls["checkpoint-registry"],
      dataDirectory,
    });
  }

  /** `port` is given when a killed one is to be found again. */
  async startGrail(
    peers: { ledger: MeshProcess; registry: MeshProcess },
    settings: object,
    port = 0,
  ): Promise<MeshProcess> {
    return this.#start("grail", "grail", {
      listen: { host: "127.0.0.1", port },
      tls: this.#tls["grail-rl"],
      ledger: { url: `http://${peers.ledger.endpoint}`, netuid },
      registryUrl: `https://${peers.registry.endpoint}`,
      hotkeySeedFile: await this.#seedFile("owner", 1),
      dataDirectory: path.join(this.directory, "grail"),
      threads: 1,
      ...settings,
    });
  }

  async startWorker(
    name: string,
    seed: number,
    peers: { ledger: MeshProcess; registry: MeshProcess; grail: MeshProcess },
    behaviour: string,
  ): Promise<MeshProcess> {
    return this.#start("worker", name, {
      tls: this.#tls.operator,
      ledger: { url: `http://${peers.ledger.endpoint}`, netuid },
      registryUrl: `https://${peers.registry.endpoint}`,
      grailUrl: `https://${peers.grail.endpoint}`,
      hotkeySeedFile: await this.#seedFile(name, seed),
      coldkeySeedFile: await this.#seedFile("coldkey", 2),
      dataDirectory: path.join(this.directory, name),
      runId: "tiny",
      capacity: 2,
      behaviour,
    });
  }

  /** Uploads an untrained model as a pre-training checkpoint; returns its root. */
  async uploadPretrained(registry: MeshProcess): Promise<Uint8Array> {
    const client = createClient(CheckpointRegistry, {
      url: `https://${registry.endpoint}`,
      caFile: this.#tls.operator!.caFile,
      tls: this.#tls.operator!,
    });
    const text = "12+34=46 what is the sum of seven and two? ".repeat(40);
    const json = trainTokenizer(text, { vocabSize: tinyShape.vocabSize });
    const tokenizer = Tokenizer.fromJson(json);
    const shape = { ...tinyShape, vocabSize: tokenizer.vocabSize };
    const files = exportCheckpoint(shape, initialParameters(shape, 5n), tokenizer.toFiles(), {
      dtype: "F32",
    });
    const facts = { runId: "tiny", stage: CheckpointStage.PRETRAIN, version: 1, createdAtMs: 1 };
    const { root } = await uploadCheckpoint(client, files, buildManifest(files, facts, this.owner));
    closeClient(client);
    return root;
  }

  async #seedFile(name: string, seed: number): Promise<string> {
    const file = path.join(this.directory, `${name}.key`);
    await writeFile(file, `${toHex(new Uint8Array(32).fill(seed))}\n`);
    return file;
  }

  async #start(entry: keyof typeof entries, name: string, config: object): Promise<MeshProcess> {
    const configFile = path.join(this.directory, `${name}.json`);
    const readyFile = path.join(this.directory, `${name}.ready`);
    await writeFile(configFile, JSON.stringify(config));
    await rm(readyFile, { force: true });
    const child = spawn(
      process.execPath,
      [path.join(repository, entries[entry]), "--config", configFile],
      {
        env: { ...process.env, COVENANT_READY_FILE: readyFile, COVENANT_LOG_LEVEL: "warn" },
        stdio: ["ignore", "ignore", "inherit"],
      },
    );
    const exited = once(child, "exit").then(() => child.exitCode);
    this.#processes.push({ child, exited });
    const endpoint = entry === "worker" ? "" : await readyEndpoint(child, readyFile, name);
    return {
      endpoint,
      exited,
      async kill(signal) {
        child.kill(signal);
        await exited;
      },
    };
  }
}

/** Address of a worker's hotkey by seed. */
export function workerAddress(seed: number): Hotkey["address"] {
  return hotkeyFromSeed(new Uint8Array(32).fill(seed)).address;
}

async function readyEndpoint(child: ChildProcess, file: string, name: string): Promise<string> {
  while (child.exitCode === null && child.signalCode === null) {
    const text = await readFile(file, "utf8").catch(() => "");
    if (text !== "") return (JSON.parse(text) as { endpoint: string }).endpoint;
    await sleep(20);
  }
  throw new Error(`${name} exited with ${child.exitCode ?? child.signalCode} before it was ready`);
}
