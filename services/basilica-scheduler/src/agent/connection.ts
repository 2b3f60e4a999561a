import { create } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type {
  Agents,
  ConnectRequest,
  ConnectResponse,
  Resources,
} from "@covenant/contracts/basilica";
import { ConnectRequestSchema, HeartbeatSchema, HelloSchema } from "@covenant/contracts/basilica";
import type { Clock, Logger } from "@covenant/runtime";
import { fromUnknown } from "@covenant/runtime";
import type { NodeAgent } from "./agent.ts";
import type { Outbox } from "./outbox.ts";

/** How a node presents itself and how patient it is. */
export interface ConnectionOptions {
  readonly nodeId: string;
  readonly capacity: Resources;
  readonly workloads: readonly string[];
  readonly heartbeatMs: number;
  readonly reconnectMinMs: number;
  readonly reconnectMaxMs: number;
}

/** Heartbeats without an answer until the stream counts as dead. */
const missedHeartbeatsMax = 4;

interface Modules {
  readonly client: Client<typeof Agents>;
  readonly agent: NodeAgent;
  readonly outbox: Outbox;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Dials the scheduler until the signal aborts. A failed or silent stream is replaced after a pause
 * that doubles up to its maximum, with jitter; the node's tasks run on meanwhile.
 */
export async function keepConnected(
  options: ConnectionOptions,
  modules: Modules,
  signal: AbortSignal,
): Promise<void> {
  let pauseMs = options.reconnectMinMs;
  while (!signal.aborted) {
    const startedAtMs = modules.clock.nowMs();
    try {
      await runStream(options, modules, signal);
    } catch (error) {
      if (signal.aborted) return;
      const { code, message } = fromUnknown(error);
      modules.logger.warn({ code, message, pauseMs }, "connection to the scheduler lost");
    }
    const lastedMs = modules.clock.nowMs() - startedAtMs;
    if (lastedMs > options.reconnectMaxMs) pauseMs = options.reconnectMinMs;
    await modules.clock.sleep(pauseMs * (0.5 + Math.random() / 2), signal).catch(() => undefined);
    pauseMs = Math.min(options.reconnectMaxMs, pauseMs * 2);
  }
}

async function runStream(
  options: ConnectionOptions,
  modules: Modules,
  signal: AbortSignal,
): Promise<void> {
  const { client, clock, logger } = modules;
  const over = new AbortController();
  const streamSignal = AbortSignal.any([signal, over.signal]);
  let heardAtMs = clock.nowMs();
  let greeted = false;
  const watchdog = setInterval(() => {
    const silentMs = clock.nowMs() - heardAtMs;
    if (silentMs > options.heartbeatMs * missedHeartbeatsMax) {
      over.abort(new Error(`the scheduler was silent for ${silentMs} ms`));
    }
  }, options.heartbeatMs);
  try {
    const requests = outgoing(options, modules, streamSignal);
    // The stream lives as long as the node; silence is noticed by heartbeats, not by a deadline.
    for await (const response of client.connect(requests, { signal: streamSignal })) {
      if (!greeted) logger.info({ nodeId: options.nodeId }, "connected to the scheduler");
      greeted = true;
      heardAtMs = clock.nowMs();
      obey(response, modules);
    }
  } finally {
    clearInterval(watchdog);
    over.abort();
  }
}

/** The greeting, then reports as they come and a heartbeat now and then. */
async function* outgoing(
  options: ConnectionOptions,
  { agent, outbox, clock }: Modules,
  signal: AbortSignal,
): AsyncGenerator<ConnectRequest> {
  const { nodeId, capacity, workloads } = options;
  const running = agent.known();
  const sequence = BigInt(outbox.latestSequence);
  const hello = create(HelloSchema, {
    nodeId,
    capacity,
    workloads: [...workloads],
    running,
    sequence,
  });
  yield create(ConnectRequestSchema, { event: { case: "hello", value: hello } });
  const reports = outbox.stream(signal);
  let report = reports.next();
  while (!signal.aborted) {
    const pause = new AbortController();
    const beat = clock.sleep(options.heartbeatMs, pause.signal).then(
      () => "beat" as const,
      () => "beat" as const,
    );
    const first = await Promise.race([report, beat]);
    pause.abort();
    if (first === "beat") {
      const value = create(HeartbeatSchema, { atMs: BigInt(clock.nowMs()) });
      if (!signal.aborted)
        yield create(ConnectRequestSchema, { event: { case: "heartbeat", value } });
      continue;
    }
    if (first.done) return;
    yield first.value;
    report = reports.next();
  }
}

function obey(response: ConnectResponse, { agent, outbox }: Modules): void {
  const { command } = response;
  switch (command.case) {
    case "start":
      agent.start(command.value);
      return;
    case "stop":
      agent.stop(command.value);
      return;
    case "ack":
      agent.acknowledged(outbox.acknowledge(Number(command.value.sequence)));
      return;
    default:
      // A command of a later version: this agent cannot obey it and says nothing false about it.
      return;
  }
}
