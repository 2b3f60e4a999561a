import { join, resolve } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Agents, ResourcesSchema } from "@covenant/contracts/basilica";
import { createClient, readHotkeyFile, runService } from "@covenant/runtime";
import { NodeAgent } from "./agent.ts";
import { agentConfigSchema } from "./config.ts";
import { keepConnected } from "./connection.ts";
import { passedEnvironment } from "./environment.ts";
import { openSequence } from "./node-state.ts";
import { Outbox } from "./outbox.ts";

const name = "basilica-agent";
/** How long a leaving agent tries to hand over its last reports. */
const farewellMs = 2_000;

await runService({
  name,
  schema: agentConfigSchema,
  async start({ config, logger, clock }) {
    const hotkey = await readHotkeyFile(config.hotkeySeedFile);
    const nodeId = config.nodeId ?? `node-${hotkey.address.slice(2, 14).toLowerCase()}`;
    const dataDirectory = resolve(config.dataDirectory);
    const nextSequence = openSequence(join(dataDirectory, "sequence.json"));
    const outbox = new Outbox({ itemsMax: config.outboxItemsMax }, { nextSequence });
    const workloads = Object.fromEntries(
      Object.entries(config.workloads).map(([workload, { command, cwd, environment }]) => [
        workload,
        {
          command,
          cwd: resolve(cwd),
          environment: { ...passedEnvironment(process.env), ...environment },
        },
      ]),
    );
    const { logs: logLimits, endedTasksMax } = config;
    const tasksRoot = join(dataDirectory, "tasks");
    const agent = new NodeAgent(
      { tasksRoot, workloads, logLimits, endedTasksMax },
      { outbox, clock, logger },
    );
    agent.recover();
    const timers = [
      setInterval(() => agent.poll(), config.pollMs),
      setInterval(() => agent.observe(), config.observeMs),
      setInterval(() => agent.meter(), config.meterMs),
    ];
    const client = createClient(Agents, {
      url: config.schedulerUrl,
      caFile: config.caFile,
      hotkey,
    });
    const leaving = new AbortController();
    const capacity = create(ResourcesSchema, {
      ...config.capacity,
      memoryBytes: BigInt(config.capacity.memoryBytes),
    });
    const connected = keepConnected(
      { ...config, nodeId, capacity, workloads: Object.keys(workloads) },
      { client, agent, outbox, clock, logger },
      leaving.signal,
    );
    return {
      async drain() {
        if (config.onShutdown === "stop") await agent.stopAll(AbortSignal.timeout(farewellMs * 10));
        const untilMs = clock.nowMs() + farewellMs;
        while (outbox.size > 0 && clock.nowMs() < untilMs) await clock.sleep(20);
        for (const timer of timers) clearInterval(timer);
        leaving.abort();
        await connected;
      },
    };
  },
});
