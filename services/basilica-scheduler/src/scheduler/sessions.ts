import { create } from "@bufbuild/protobuf";
import type { ConnectResponse } from "@covenant/contracts/basilica";
import { ConnectResponseSchema } from "@covenant/contracts/basilica";

/** Commands that may wait for one node; a node this far behind is cut off and greets again. */
const commandsMax = 10_000;

/** What a node is told. */
export type Command = NonNullable<ConnectResponse["command"]>;

/** One open stream of a node: a bounded queue of commands on the way out. */
export class NodeSession {
  readonly nodeId: string;
  readonly #closed = new AbortController();
  #queue: ConnectResponse[] = [];
  #wake: () => void = () => undefined;

  constructor(nodeId: string) {
    this.nodeId = nodeId;
  }

  /** Aborted when the session is over. */
  get signal(): AbortSignal {
    return this.#closed.signal;
  }

  send(command: Command): void {
    // Acknowledgements are cumulative: the newest says it all.
    const last = this.#queue.at(-1);
    if (command.case === "ack" && last?.command.case === "ack") this.#queue.pop();
    this.#queue.push(create(ConnectResponseSchema, { command }));
    if (this.#queue.length > commandsMax) this.close();
    this.#wake();
  }

  close(): void {
    this.#closed.abort();
    this.#wake();
  }

  /** Yields commands in order until the session is closed. */
  async *commands(): AsyncGenerator<ConnectResponse> {
    while (!this.signal.aborted) {
      const batch = this.#queue;
      this.#queue = [];
      yield* batch;
      if (this.#queue.length > 0 || this.signal.aborted) continue;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** The open sessions, one for each node: a new one replaces the old one. */
export class Sessions {
  readonly #open = new Map<string, NodeSession>();

  get(nodeId: string): NodeSession | undefined {
    return this.#open.get(nodeId);
  }

  add(session: NodeSession): void {
    this.#open.get(session.nodeId)?.close();
    this.#open.set(session.nodeId, session);
  }

  /** Returns true when the session was the node's present one. */
  remove(session: NodeSession): boolean {
    session.close();
    if (this.#open.get(session.nodeId) !== session) return false;
    return this.#open.delete(session.nodeId);
  }

  closeAll(): void {
    for (const session of this.#open.values()) session.close();
  }
}
