import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Agents, ConnectRequest, Hello, LogLines } from "@covenant/contracts/basilica";
import { isValidResources } from "@covenant/marketplace";
import type { Logger } from "@covenant/runtime";
import { CovenantError, fromUnknown, principalOf } from "@covenant/runtime";
import type { Change, ControlLoop } from "../scheduler/control-loop.ts";
import { toResources } from "../scheduler/convert.ts";
import type { LogStore } from "../scheduler/log-store.ts";
import {
  advanceSequence,
  applySample,
  applyTaskEvent,
  greetNode,
} from "../scheduler/node-reports.ts";
import type { Sessions } from "../scheduler/sessions.ts";
import { NodeSession } from "../scheduler/sessions.ts";

const nodeIdPattern = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const workloadsMax = 100;
const runningMax = 1_000;
const linesPerReportMax = 10_000;

interface Modules {
  readonly loop: ControlLoop;
  readonly sessions: Sessions;
  readonly logs: LogStore;
  /** A node that says nothing for this long is taken as gone. */
  readonly silenceMs: number;
  readonly logger: Logger;
}

/** Handlers of basilica.v1.Agents. */
export function agentsService(modules: Modules): ServiceImpl<typeof Agents> {
  return {
    async *connect(requests, context) {
      const reports = requests[Symbol.asyncIterator]();
      const { hello, hotkey } = await readHello(reports, context);
      const session = new NodeSession(hello.nodeId);
      const close = (): void => session.close();
      context.signal.addEventListener("abort", close);
      const reading = enrol(hello, hotkey, session, modules).then(() =>
        readReports(reports, session, modules),
      );
      // Whichever way reading ends, the stream ends with it; the reason surfaces below.
      reading.then(close, close);
      try {
        yield* session.commands();
        await Promise.race([reading, Promise.resolve()]);
      } finally {
        context.signal.removeEventListener("abort", close);
        if (modules.sessions.remove(session)) modules.loop.setConnected(hello.nodeId, false);
        reading.catch((error) => {
          const { code, message } = fromUnknown(error);
          modules.logger.info({ nodeId: hello.nodeId, code, message }, "node disconnected");
        });
      }
    },
  };
}

async function readHello(
  reports: AsyncIterator<ConnectRequest>,
  context: HandlerContext,
): Promise<{ hello: Hello; hotkey: string }> {
  const { hotkey } = principalOf(context);
  if (hotkey === undefined) {
    throw new CovenantError("COV_UNAUTHENTICATED", "a node proves a hotkey before it connects");
  }
  const first = await reports.next();
  const event = first.done ? undefined : first.value.event;
  if (event?.case !== "hello") {
    throw new CovenantError("COV_INVALID_ARGUMENT", "the first message of a node is its greeting");
  }
  const hello = event.value;
  const problems: string[] = [];
  if (!nodeIdPattern.test(hello.nodeId)) problems.push("nodeId is not a plain name");
  if (!isValidResources(toResources(hello.capacity))) problems.push("capacity is out of range");
  if (hello.workloads.length > workloadsMax) problems.push(`more than ${workloadsMax} workloads`);
  if (hello.running.length > runningMax) problems.push(`more than ${runningMax} tasks`);
  if (problems.length > 0) throw new CovenantError("COV_INVALID_ARGUMENT", problems.join("; "));
  return { hello, hotkey };
}

async function enrol(
  hello: Hello,
  hotkey: string,
  session: NodeSession,
  modules: Modules,
): Promise<void> {
  const { loop, sessions, logger } = modules;
  const { nodeId } = hello;
  // In one change: the session is there before the commands that greeting leads to are delivered,
  // and the node counts as present before deadlines are looked at.
  const sequence = await loop.run((change) => {
    const stored = greetNode(change, hello, hotkey);
    sessions.add(session);
    loop.setConnected(nodeId, true);
    return stored;
  });
  session.send({ case: "ack", value: ack(sequence) });
  logger.info({ nodeId, running: hello.running.length }, "node connected");
}

async function readReports(
  reports: AsyncIterator<ConnectRequest>,
  session: NodeSession,
  modules: Modules,
): Promise<void> {
  let timer = setTimeout(() => session.close(), modules.silenceMs);
  try {
    while (!session.signal.aborted) {
      const next = await reports.next();
      if (next.done || session.signal.aborted) return;
      clearTimeout(timer);
      timer = setTimeout(() => session.close(), modules.silenceMs);
      const sequence = await store(next.value, session.nodeId, modules);
      if (sequence !== undefined) session.send({ case: "ack", value: ack(sequence) });
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Stores one report; resolves to the node's stored sequence, or undefined for what has none. */
function store(
  report: ConnectRequest,
  nodeId: string,
  modules: Modules,
): Promise<number | undefined> {
  const { event } = report;
  return modules.loop.run((change) => {
    const stored = (): number => change.draft.node(nodeId)?.sequence ?? 0;
    switch (event.case) {
      case "task":
        if (advanceSequence(change, nodeId, Number(event.value.sequence))) {
          applyTaskEvent(change, nodeId, event.value);
        }
        return stored();
      case "meter":
        applySample(change, nodeId, event.value);
        advanceSequence(change, nodeId, Number(event.value.sequence));
        return stored();
      case "logs":
        if (Number(event.value.sequence) > stored()) storeLines(event.value, change, modules.logs);
        advanceSequence(change, nodeId, Number(event.value.sequence));
        return stored();
      case "heartbeat":
        return stored();
      default:
        return undefined;
    }
  });
}

/** Written before the sequence advances: lines may repeat after a crash, but none is lost. */
function storeLines(report: LogLines, change: Change, logs: LogStore): void {
  const { jobId, task, lines, droppedLines } = report;
  const known = change.draft.job(jobId)?.record.tasks.some((entry) => entry.name === task);
  if (known) logs.append(jobId, task, lines.slice(0, linesPerReportMax), Number(droppedLines));
}

function ack(sequence: number) {
  return { $typeName: "covenant.basilica.v1.Ack" as const, sequence: BigInt(sequence) };
}
