import { create } from "@bufbuild/protobuf";
import type {
  ConnectRequest,
  LogLines,
  MeterSample,
  TaskEvent,
} from "@covenant/contracts/basilica";
import { ConnectRequestSchema, MeterSampleSchema } from "@covenant/contracts/basilica";

/** Items sent and not acknowledged; sending waits beyond this. */
const inFlightMax = 1_000;

/** What an agent reports and the scheduler acknowledges. */
export type OutboxEvent =
  | { readonly case: "task"; readonly value: TaskEvent }
  | { readonly case: "logs"; readonly value: LogLines }
  | { readonly case: "meter"; readonly value: MeterSample };

/**
 * What the scheduler has not acknowledged yet, in order, bounded. When it is full, the oldest log
 * lines go first; then samples that were never sent are joined, which loses no amount; task events
 * are kept.
 */
export class Outbox {
  readonly #itemsMax: number;
  readonly #nextSequence: () => number;
  #items: OutboxEvent[] = [];
  #sentSequence = 0;
  #latestSequence = 0;
  #wake: () => void = () => undefined;
  readonly #droppedLines = new Map<string, bigint>();

  constructor(options: { itemsMax: number }, modules: { nextSequence: () => number }) {
    this.#itemsMax = options.itemsMax;
    this.#nextSequence = modules.nextSequence;
  }

  /** Items waiting for acknowledgement. */
  get size(): number {
    return this.#items.length;
  }

  /** Sequence of the newest item. */
  get latestSequence(): number {
    return this.#latestSequence;
  }

  /** Appends an event; gives it the next sequence of the node. */
  add(event: OutboxEvent): void {
    this.#latestSequence = this.#nextSequence();
    event.value.sequence = BigInt(this.#latestSequence);
    if (event.case === "logs") {
      const key = taskKey(event.value);
      event.value.droppedLines += this.#droppedLines.get(key) ?? 0n;
      this.#droppedLines.delete(key);
    }
    this.#items.push(event);
    if (this.#items.length > this.#itemsMax) this.#shrink();
    this.#wake();
  }

  /** Forgets everything up to the sequence and returns the task events among it. */
  acknowledge(sequence: number): TaskEvent[] {
    const done = this.#items.filter((item) => Number(item.value.sequence) <= sequence);
    this.#items = this.#items.filter((item) => Number(item.value.sequence) > sequence);
    this.#wake();
    return done.flatMap((item) => (item.case === "task" ? [item.value] : []));
  }

  /** Yields every item in order, from the oldest kept on, until the signal aborts. */
  async *stream(signal: AbortSignal): AsyncGenerator<ConnectRequest> {
    let cursor = 0;
    while (!signal.aborted) {
      const index = this.#firstAfter(cursor);
      const next = this.#items[index];
      if (next === undefined || index >= inFlightMax) {
        await this.#waitForItems(signal);
        continue;
      }
      cursor = Number(next.value.sequence);
      this.#sentSequence = Math.max(this.#sentSequence, cursor);
      yield create(ConnectRequestSchema, { event: next });
    }
  }

  /** Index of the first item beyond the sequence; items are in order. */
  #firstAfter(sequence: number): number {
    let low = 0;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (Number(this.#items[middle]!.value.sequence) > sequence) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #waitForItems(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const finish = (): void => {
        signal.removeEventListener("abort", finish);
        resolve();
      };
      this.#wake = finish;
      signal.addEventListener("abort", finish, { once: true });
      if (signal.aborted) finish();
    });
  }

  #shrink(): void {
    const oldestLog = this.#items.findIndex((item) => item.case === "logs");
    if (oldestLog >= 0) {
      const [item] = this.#items.splice(oldestLog, 1);
      if (item?.case === "logs") this.#countDropped(item.value);
      return;
    }
    this.#joinSamples();
  }

  #countDropped(logs: LogLines): void {
    const key = taskKey(logs);
    const lost = BigInt(logs.lines.length) + logs.droppedLines;
    this.#droppedLines.set(key, (this.#droppedLines.get(key) ?? 0n) + lost);
  }

  /** Joins all unsent samples of each task into its newest one. */
  #joinSamples(): void {
    const kept: OutboxEvent[] = [];
    const newest = new Map<string, MeterSample>();
    for (const item of this.#items.toReversed()) {
      if (item.case !== "meter" || Number(item.value.sequence) <= this.#sentSequence) {
        kept.push(item);
        continue;
      }
      const key = taskKey(item.value);
      const later = newest.get(key);
      if (later === undefined) {
        const copy = create(MeterSampleSchema, item.value);
        newest.set(key, copy);
        kept.push({ case: "meter", value: copy });
      } else {
        later.fromMs = item.value.fromMs;
        later.cpuMicros += item.value.cpuMicros;
        if (item.value.peakRssBytes > later.peakRssBytes)
          later.peakRssBytes = item.value.peakRssBytes;
      }
    }
    this.#items = kept.reverse();
  }
}

function taskKey(value: { readonly jobId: string; readonly task: string }): string {
  return `${value.jobId}/${value.task}`;
}
