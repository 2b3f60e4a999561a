import { appendFileSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

/** Lines kept in memory and given out by a tail. */
export const tailLinesMax = 1_000;
/** Lines a slow reader may fall behind before it misses some. */
const followerLinesMax = 5_000;

interface TaskLog {
  readonly path: string;
  lines: string[];
  sizeBytes: number;
  readonly followers: Set<(lines: readonly string[]) => void>;
}

/**
 * Logs of tasks: the newest lines in memory, more on disk in a file that is rotated once, so that
 * a task takes at most twice `fileBytesMax`.
 */
export class LogStore {
  readonly #root: string;
  readonly #fileBytesMax: number;
  readonly #logs = new Map<string, TaskLog>();

  constructor(options: { root: string; fileBytesMax: number }) {
    this.#root = options.root;
    this.#fileBytesMax = options.fileBytesMax;
  }

  /** Appends lines; they are on disk when it returns. */
  append(jobId: string, task: string, lines: readonly string[], dropped: number): void {
    const log = this.#open(jobId, task);
    const added = dropped > 0 ? [`[${dropped} lines left out]`, ...lines] : [...lines];
    if (added.length === 0) return;
    const text = `${added.join("\n")}\n`;
    if (log.sizeBytes > this.#fileBytesMax) {
      renameSync(log.path, `${log.path}.old`);
      log.sizeBytes = 0;
    }
    mkdirSync(dirname(log.path), { recursive: true });
    appendFileSync(log.path, text, { mode: 0o600 });
    log.sizeBytes += Buffer.byteLength(text);
    log.lines = [...log.lines, ...added].slice(-tailLinesMax);
    for (const follower of log.followers) follower(added);
  }

  /** The newest lines, oldest first. */
  tail(jobId: string, task: string, count: number): string[] {
    const { lines } = this.#open(jobId, task);
    return lines.slice(Math.max(0, lines.length - Math.min(count, tailLinesMax)));
  }

  /** Yields batches of new lines until the signal aborts or `isOver` says that no more will come. */
  async *follow(
    jobId: string,
    task: string,
    signal: AbortSignal,
    isOver: () => boolean,
  ): AsyncGenerator<string[]> {
    const log = this.#open(jobId, task);
    let pending: string[] = [];
    let wake: () => void = () => undefined;
    const follower = (lines: readonly string[]): void => {
      pending.push(...lines);
      if (pending.length > followerLinesMax) pending = pending.slice(-followerLinesMax);
      wake();
    };
    const timer = setInterval(() => wake(), 500);
    const abort = (): void => wake();
    signal.addEventListener("abort", abort);
    log.followers.add(follower);
    try {
      while (!signal.aborted) {
        if (pending.length > 0) {
          const batch = pending;
          pending = [];
          yield batch;
          continue;
        }
        if (isOver()) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      clearInterval(timer);
      signal.removeEventListener("abort", abort);
      log.followers.delete(follower);
    }
  }

  /** Deletes the logs of a job. */
  remove(jobId: string): void {
    rmSync(join(this.#root, jobId), { recursive: true, force: true });
    for (const key of this.#logs.keys()) if (key.startsWith(`${jobId}/`)) this.#logs.delete(key);
  }

  #open(jobId: string, task: string): TaskLog {
    const key = `${jobId}/${task}`;
    const open = this.#logs.get(key);
    if (open !== undefined) return open;
    const path = join(this.#root, jobId, `${task}.log`);
    const text = readIfPresent(path);
    const lines = text.split("\n").slice(0, -1).slice(-tailLinesMax);
    const log: TaskLog = { path, lines, sizeBytes: Buffer.byteLength(text), followers: new Set() };
    this.#logs.set(key, log);
    return log;
  }
}

function readIfPresent(path: string): string {
  try {
    // Rotation bounds the file.
    return statSync(path).isFile() ? readFileSync(path, "utf8") : "";
  } catch {
    return "";
  }
}
