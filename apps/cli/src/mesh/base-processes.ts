// Configuration of the processes that `covenant up` starts itself.
import { availableParallelism, totalmem } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { CertificateName, StoredHotkey, TlsFiles } from "./identities.ts";
import type { Layout, Ports } from "./layout.ts";
import type { Preset } from "./preset.ts";
import type { ProcessSpec } from "./supervisor.ts";

/** Root of the checkout: the CLI runs its siblings from source. */
export const repositoryRoot = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)),
  "../../../..",
);

const entry = (relative: string) => path.join(repositoryRoot, relative);

/** Inputs of all base processes. */
export interface BaseInputs {
  layout: Layout;
  ports: Ports;
  certificates: Record<CertificateName, TlsFiles>;
  netuid: number;
  owner: StoredHotkey;
  coldkey: StoredHotkey;
  node: StoredHotkey;
  preset: Preset;
  /** Engine threads of grail-rl. */
  threads: number;
  /** Where its models compute. */
  device: string;
}

const treasuryTao = 1_000_000;

/** The specs in start order. */
export function baseProcesses(inputs: BaseInputs): ProcessSpec[] {
  return [
    ledgerProcess(inputs),
    registryProcess(inputs),
    grailProcess(inputs),
    schedulerProcess(inputs),
    agentProcess(inputs),
    consoleProcess(inputs),
  ];
}

const listen = (port: number) => ({ host: "127.0.0.1", port });
const ledgerOf = ({ ports, netuid }: BaseInputs) => ({
  url: `http://127.0.0.1:${ports.ledger}`,
  netuid,
});

function ledgerProcess(inputs: BaseInputs): ProcessSpec {
  const { layout, ports, coldkey, owner, netuid } = inputs;
  return {
    name: "ledger",
    entry: entry("packages/ledger/src/chain/main.ts"),
    config: {
      listen: listen(ports.ledger),
      dataDirectory: layout.dataOf("ledger"),
      genesis: {
        balances: { [coldkey.hotkey.address]: treasuryTao },
        subnets: [{ netuid, preset: "development", owner: owner.hotkey.address }],
      },
    },
  };
}

function registryProcess({ layout, ports, certificates }: BaseInputs): ProcessSpec {
  return {
    name: "checkpoint-registry",
    entry: entry("services/checkpoint-registry/src/main.ts"),
    config: {
      listen: listen(ports.registry),
      tls: certificates["checkpoint-registry"],
      dataDirectory: layout.dataOf("checkpoint-registry"),
    },
  };
}

function grailProcess(inputs: BaseInputs): ProcessSpec {
  const { layout, ports, certificates, preset, threads, device, owner } = inputs;
  return {
    name: "grail-rl",
    entry: entry("services/grail-rl/src/main.ts"),
    config: {
      listen: listen(ports.grail),
      tls: certificates["grail-rl"],
      dataDirectory: layout.dataOf("grail-rl"),
      ledger: ledgerOf(inputs),
      registryUrl: `https://127.0.0.1:${ports.registry}`,
      hotkeySeedFile: owner.seedFile,
      threads,
      device,
      supervised: preset.supervised,
      policy: preset.policy,
    },
  };
}

function schedulerProcess({ layout, ports, certificates }: BaseInputs): ProcessSpec {
  return {
    name: "basilica-scheduler",
    entry: entry("services/basilica-scheduler/src/main.ts"),
    config: {
      listen: listen(ports.scheduler),
      tls: certificates["basilica-scheduler"],
      dataDirectory: layout.dataOf("basilica-scheduler"),
      openAi: { listen: listen(ports.api) },
    },
  };
}

function agentProcess(inputs: BaseInputs): ProcessSpec {
  const { layout, ports, certificates, node } = inputs;
  const run = (relative: string) => ({ command: [process.execPath, entry(relative)] });
  return {
    name: "node-agent",
    entry: entry("services/basilica-scheduler/src/agent/main.ts"),
    config: {
      nodeId: "node-1",
      schedulerUrl: `https://127.0.0.1:${ports.scheduler}`,
      caFile: certificates.operator.caFile,
      hotkeySeedFile: node.seedFile,
      dataDirectory: layout.dataOf("node-agent"),
      // One machine plays several here: the show's peers share its cores.
      capacity: {
        milliCpu: Math.max(4, availableParallelism()) * 1000,
        memoryBytes: totalmem(),
      },
      workloads: {
        "templar-trainer": run("services/templar-trainer/src/main.ts"),
        "gauntlet-validator": run("services/gauntlet-validator/src/main.ts"),
        "rollout-worker": run("services/grail-rl/src/worker/main.ts"),
        "inference-replica": run("services/basilica-scheduler/src/replica/main.ts"),
      },
    },
  };
}

function consoleProcess({ ports, certificates, layout }: BaseInputs): ProcessSpec {
  return {
    name: "console",
    entry: entry("apps/console/server/main.ts"),
    config: {
      listen: listen(ports.console),
      tls: certificates.console,
      dataDirectory: layout.dataOf("console"),
      services: {
        registry: `https://127.0.0.1:${ports.registry}`,
        grail: `https://127.0.0.1:${ports.grail}`,
        scheduler: `https://127.0.0.1:${ports.scheduler}`,
      },
      openAiUrl: `http://127.0.0.1:${ports.api}`,
    },
  };
}
