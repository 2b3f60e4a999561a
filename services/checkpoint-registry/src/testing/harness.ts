// A registry over real TLS for tests, in this process or in one of its own, and content to put into it.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "@connectrpc/connect";
import { buildManifest, type CheckpointFileData } from "@covenant/checkpoints";
import { type Hotkey, hotkeyFromSeed } from "@covenant/contracts";
import { CheckpointRegistry, CheckpointStage } from "@covenant/contracts/registry";
import type { ObjectStore } from "@covenant/objects";
import {
  type CertificateFiles,
  type ClientOptions,
  type Clock,
  closeClient,
  createClient,
  createDevelopmentCa,
  createLogger,
  issueCertificate,
  SpanStore,
  systemClock,
} from "@covenant/runtime";
import { configSchema } from "../config.ts";
import { startRegistry } from "../service.ts";

/** The client as tests use it. */
export type RegistryClient = Client<typeof CheckpointRegistry>;

/** A registry that runs, and ways to reach it. */
export interface TestRegistry {
  port: number;
  /** A client as an operator's service or tool. */
  as(name: string): RegistryClient;
  /** A client as a participant. */
  asHotkey(hotkey: Hotkey): RegistryClient;
  stop(): Promise<void>;
}

/** Certificates and a scratch directory, shared by the tests of a file. */
export interface TestWorld {
  directory: string;
  certificates: Record<string, CertificateFiles>;
  close(): Promise<void>;
}

const NAMES = ["checkpoint-registry", "gauntlet-validator", "grail-rl", "operator", "console"];

/** Makes the scratch directory and one certificate for each name. */
export async function openWorld(): Promise<TestWorld> {
  const directory = await mkdtemp(join(tmpdir(), "covenant-registry-"));
  const authority = join(directory, "ca");
  await createDevelopmentCa(authority);
  const certificates: Record<string, CertificateFiles> = {};
  for (const name of NAMES) certificates[name] = await issueCertificate(authority, name);
  return {
    directory,
    certificates,
    close: () => rm(directory, { recursive: true, force: true }),
  };
}

/** What tests change about a registry. */
export interface TestRegistryOptions {
  dataDirectory: string;
  limits?: Record<string, number>;
  objects?: ObjectStore;
  clock?: Clock;
}

/** Runs the registry in this process. */
export async function startTestRegistry(
  world: TestWorld,
  options: TestRegistryOptions,
): Promise<TestRegistry> {
  const { dataDirectory, limits = {}, objects, clock = systemClock } = options;
  const tls = world.certificates["checkpoint-registry"]!;
  const config = configSchema.parse({ tls, dataDirectory, limits });
  const logger = createLogger({ service: "checkpoint-registry", level: "silent" });
  const { signal } = new AbortController();
  const context = { config, logger, clock, signal, spans: new SpanStore() };
  const running = await startRegistry(context, objects ? { objects } : {});
  const port = Number(running.endpoint!.split(":")[1]);
  return withClients(world, port, () => running.drain());
}

/** Runs the registry as a process of its own, so that it can be killed. */
export async function spawnRegistry(
  world: TestWorld,
  dataDirectory: string,
): Promise<TestRegistry & { kill(): Promise<void> }> {
  const configFile = `${dataDirectory}.json`;
  const readyFile = `${dataDirectory}.ready`;
  const tls = world.certificates["checkpoint-registry"]!;
  await writeFile(configFile, JSON.stringify({ tls, dataDirectory }));
  await rm(readyFile, { force: true });
  const main = new URL("../main.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [main, "--config", configFile], {
    env: { ...process.env, COVENANT_READY_FILE: readyFile },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const endpoint = await waitForReady(child, readyFile);
  const exited = once(child, "exit");
  const stopWith = (signal: NodeJS.Signals) => async () => {
    child.kill(signal);
    await exited;
  };
  const registry = withClients(world, Number(endpoint.split(":")[1]), stopWith("SIGTERM"));
  return { ...registry, kill: stopWith("SIGKILL") };
}

async function waitForReady(child: ChildProcess, readyFile: string): Promise<string> {
  while (child.exitCode === null) {
    const text = await readFile(readyFile, "utf8").catch(() => "");
    if (text !== "") return (JSON.parse(text) as { endpoint: string }).endpoint;
    await sleep(20);
  }
  throw new Error(`The registry exited with ${child.exitCode}`);
}

function withClients(world: TestWorld, port: number, stop: () => Promise<void>): TestRegistry {
  const clients: RegistryClient[] = [];
  let stopped: Promise<void> | undefined;
  const connect = (options: Omit<ClientOptions, "url">): RegistryClient => {
    const client = createClient(CheckpointRegistry, {
      url: `https://localhost:${port}`,
      ...options,
    });
    clients.push(client);
    return client;
  };
  const { caFile } = world.certificates.operator!;
  return {
    port,
    as: (name) => connect({ tls: world.certificates[name]! }),
    asHotkey: (hotkey) => connect({ caFile, hotkey }),
    stop() {
      clients.forEach(closeClient);
      stopped ??= stop();
      return stopped;
    },
  };
}

/** The hotkey of a number. */
export const hotkeyOf = (number: number): Hotkey => hotkeyFromSeed(new Uint8Array(32).fill(number));

/** Bytes that differ by seed and position; cheap, and no two chunks alike. */
export function contentOf(seed: number, bytes: number): Uint8Array {
  const data = new Uint8Array(bytes);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < bytes; i += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    data[i] = state;
    data[i + 1] = state >>> 8;
    data[i + 2] = state >>> 16;
    data[i + 3] = state >>> 24;
  }
  return data;
}

/** Files of these sizes; equal seeds give equal content. */
export function filesOf(parts: readonly { seed: number; bytes: number }[]): CheckpointFileData[] {
  return parts.map(({ seed, bytes }, i) => ({
    path: `part-${i}.bin`,
    data: contentOf(seed, bytes),
  }));
}

/** A signed manifest of files. */
export function describe(
  files: readonly CheckpointFileData[],
  changes: Partial<Parameters<typeof buildManifest>[1]> = {},
  hotkey: Hotkey = hotkeyOf(1),
) {
  const facts = { runId: "run", stage: CheckpointStage.PRETRAIN, version: 1, createdAtMs: 1 };
  return buildManifest(files, { ...facts, ...changes }, hotkey);
}
