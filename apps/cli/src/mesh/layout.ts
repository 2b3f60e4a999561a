// Where everything of one mesh lives on disk, and which ports its processes use.
import { mkdir } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { CovenantError, readFileLimited, writeFileAtomic } from "@covenant/runtime";

/** Long-lived processes that `covenant up` starts itself; everything else is a job of the scheduler. */
export const baseProcessNames = [
  "ledger",
  "checkpoint-registry",
  "grail-rl",
  "basilica-scheduler",
  "node-agent",
  "console",
] as const;
export type BaseProcessName = (typeof baseProcessNames)[number];

/** Paths below the mesh's data directory. */
export interface Layout {
  root: string;
  pki: string;
  identities: string;
  configs: string;
  logs: string;
  objects: string;
  /** Data directory of one process. */
  dataOf(name: string): string;
}

/** Creates the directories of a mesh; existing content stays. */
export async function prepareLayout(root: string): Promise<Layout> {
  const below = (name: string) => path.join(root, name);
  const layout: Layout = {
    root,
    pki: below("pki"),
    identities: below("identities"),
    configs: below("configs"),
    logs: below("logs"),
    objects: below("objects"),
    dataOf: (name) => path.join(root, "data", name),
  };
  for (const folder of [
    layout.pki,
    layout.identities,
    layout.configs,
    layout.logs,
    layout.objects,
  ]) {
    await mkdir(folder, { recursive: true });
  }
  return layout;
}

/** Ports inside the mesh, by use. */
export interface Ports {
  ledger: number;
  registry: number;
  grail: number;
  scheduler: number;
  /** For people: web console and OpenAI-compatible endpoint. */
  console: number;
  api: number;
}

const internalPorts = ["ledger", "registry", "grail", "scheduler"] as const;
const portsFileBytesMax = 4096;

/**
 * Keeps the internal ports of the last start, so that workloads that outlived it still reach their services;
 * a port that somebody else has taken since is replaced.
 * @throws CovenantError COV_PORT_IN_USE when a port that people know by number is taken.
 */
export async function choosePorts(
  layout: Layout,
  wanted: { console: number; api: number },
): Promise<Ports> {
  await requireFree(wanted.console, "--console-port", "the web console");
  await requireFree(wanted.api, "--api-port", "the OpenAI-compatible endpoint");
  const file = path.join(layout.root, "ports.json");
  const saved = await readSavedPorts(file);
  const ports: Ports = {
    ledger: 0,
    registry: 0,
    grail: 0,
    scheduler: 0,
    console: wanted.console || (await freePort()),
    api: wanted.api || (await freePort()),
  };
  for (const name of internalPorts) {
    const previous = saved[name];
    ports[name] = previous && (await isFree(previous)) ? previous : await freePort();
  }
  await writeFileAtomic(file, Buffer.from(JSON.stringify(ports)));
  return ports;
}

async function readSavedPorts(file: string): Promise<Partial<Ports>> {
  try {
    return JSON.parse(
      Buffer.from(await readFileLimited(file, portsFileBytesMax)).toString(),
    ) as Ports;
  } catch {
    // First start, or a file nobody can read: new ports serve as well.
    return {};
  }
}

async function requireFree(port: number, flag: string, what: string): Promise<void> {
  if (port === 0 || (await isFree(port))) return;
  throw new CovenantError("COV_PORT_IN_USE", `Port ${port} for ${what} is in use.`, {
    remedy: `Stop the program that listens there, or choose another port with ${flag}.`,
    metadata: { port: String(port) },
  });
}

function isFree(port: number): Promise<boolean> {
  return listenOnce(port).then(
    () => true,
    () => false,
  );
}

function freePort(): Promise<number> {
  return listenOnce(0);
}

function listenOnce(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      const address = server.address();
      const bound = typeof address === "object" && address ? address.port : port;
      server.close(() => resolve(bound));
    });
  });
}
