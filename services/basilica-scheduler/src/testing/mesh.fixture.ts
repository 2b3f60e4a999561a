import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { toHex } from "@covenant/contracts";
import type { Job, JobSpecSchema, JobState } from "@covenant/contracts/basilica";
import { Billing, Inference, JobState as JobStates, Scheduler } from "@covenant/contracts/basilica";
import { createChannel, createDevelopmentCa, issueCertificate } from "@covenant/runtime";
import type { TestProcess } from "./processes.fixture.ts";
import { endStrays, eventually, startProcess } from "./processes.fixture.ts";

const schedulerMain = fileURLToPath(new URL("../main.ts", import.meta.url));
const agentMain = fileURLToPath(new URL("../agent/main.ts", import.meta.url));
const workloadMain = fileURLToPath(new URL("./workload.mjs", import.meta.url));

/** A job as tests write it. */
export type JobInit = MessageInitShape<typeof JobSpecSchema>;

/** A scheduler and its clients, with as many agents as a test starts. */
export interface TestMesh {
  readonly directory: string;
  readonly scheduler: Client<typeof Scheduler>;
  readonly billing: Client<typeof Billing>;
  readonly inference: Client<typeof Inference>;
  readonly openAiUrl: string;
  readonly caFile: string;
  certificate(name: string): Promise<{ certFile: string; keyFile: string; caFile: string }>;
  startScheduler(): Promise<TestProcess>;
  /** The scheduler's first life. */
  readonly first: TestProcess;
  startAgent(name: string, config?: object, waitMs?: number): Promise<TestProcess>;
  submit(spec: JobInit, key?: string): Promise<Job>;
  /** Waits for a state of the job; fails at once when it ends in another one. */
  reach(jobId: string, state: JobState): Promise<Job>;
  close(): Promise<void>;
}

/** Starts a scheduler with short times. Extra fields go into its configuration. */
export async function startMesh(extra: object = {}): Promise<TestMesh> {
  const directory = mkdtempSync(join(tmpdir(), "covenant-basilica-"));
  const caDirectory = join(directory, "ca");
  const { caFile } = await createDevelopmentCa(caDirectory);
  const tls = await issueCertificate(caDirectory, "basilica-scheduler");
  const operator = await issueCertificate(caDirectory, "operator");
  const started: TestProcess[] = [];
  const readyFile = join(directory, "openai.json");
  const config = {
    listen: { port: 0 },
    tls,
    dataDirectory: join(directory, "scheduler"),
    tickMs: 50,
    nodeLostAfterMs: 60_000,
    restarts: { backoffBaseMs: 50, backoffMaxMs: 200 },
    ...extra,
    openAi: { readyFile, ...(extra as { openAi?: object }).openAi },
  };
  const start = async (): Promise<TestProcess> => {
    const name = "scheduler";
    const process = await startProcess({ main: schedulerMain, name, directory, config });
    // A second life listens where the nodes look for it.
    config.listen.port = Number(process.endpoint.split(":").at(-1));
    started.push(process);
    return process;
  };
  const first = await start();
  const url = `https://${first.endpoint}`;
  const channel = createChannel({ url, caFile, tls: operator });
  const scheduler = channel.client(Scheduler);
  const { endpoint: openAi } = JSON.parse(readFileSync(readyFile, "utf8"));
  let keys = 0;
  const agents = new Set<string>();
  return {
    directory,
    caFile,
    scheduler,
    billing: channel.client(Billing),
    inference: channel.client(Inference),
    openAiUrl: `http://${openAi}`,
    certificate: (name) => issueCertificate(caDirectory, name),
    first,
    startScheduler: start,
    async startAgent(name, agentExtra = {}, waitMs) {
      const hotkeySeedFile = join(directory, `${name}.seed`);
      writeFileSync(
        hotkeySeedFile,
        toHex(new Uint8Array(32).fill(name.charCodeAt(0), 0, 31).fill(name.length, 31)),
      );
      const dataDirectory = join(directory, name);
      mkdirSync(dataDirectory, { recursive: true });
      agents.add(name);
      const process = await startProcess({
        main: agentMain,
        name,
        directory,
        config: {
          schedulerUrl: url,
          caFile,
          hotkeySeedFile,
          nodeId: name,
          dataDirectory,
          capacity: { milliCpu: 4_000, memoryBytes: 4_000_000_000 },
          workloads: { test: { command: [globalThis.process.execPath, workloadMain] } },
          pollMs: 40,
          observeMs: 100,
          meterMs: 200,
          heartbeatMs: 500,
          reconnectMinMs: 50,
          reconnectMaxMs: 300,
          ...agentExtra,
        },
      });
      started.push(process);
      await eventually(
        `agent ${name} is connected`,
        async () => {
          const { nodes } = await scheduler.listNodes({});
          return nodes.some((node) => node.id === name && node.connected);
        },
        waitMs,
      );
      return process;
    },
    async submit(spec, key) {
      keys += 1;
      const { job } = await scheduler.submitJob({ idempotencyKey: key ?? `key-${keys}`, spec });
      return job!;
    },
    async reach(jobId, state) {
      const ends: JobState[] = [JobStates.SUCCEEDED, JobStates.FAILED, JobStates.CANCELLED];
      return eventually(`job ${jobId} is ${state}`, async () => {
        const { job } = await scheduler.getJob({ jobId });
        if (job?.state === state) return job;
        if (job && ends.includes(job.state))
          throw new Error(`ended as ${job.state}: ${job.reason}`);
        return undefined;
      });
    },
    async close() {
      channel.close();
      // Agents first: they stop their tasks.
      for (const process of started.toReversed()) await process.kill("SIGTERM");
      for (const name of agents) endStrays(join(directory, name));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A task of the test workload. */
export function testTask(name: string, config: object = {}, more: object = {}) {
  return {
    name,
    workload: "test",
    configJson: JSON.stringify(config),
    resources: { milliCpu: 1_000, memoryBytes: 100_000_000n },
    ...more,
  };
}
