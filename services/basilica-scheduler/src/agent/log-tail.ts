import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";

/** Bounds of what is taken from a task's output. */
export interface LogLimits {
  /** Longer lines are cut. */
  readonly lineBytesMax: number;
  readonly linesPerSecondMax: number;
  /** The file on disk is emptied when it is read and has grown beyond this. */
  readonly fileBytesMax: number;
}

/** Read in one poll of one file. */
const readBytesMax = 256 * 1024;
/** How many seconds' worth of lines may come in one burst. */
const burstSeconds = 4;

/**
 * Follows a file that a workload appends to. The workload writes to the file itself, so that it
 * neither blocks nor dies when the agent does; the agent reads behind it.
 */
export class LogTail {
  readonly #path: string;
  readonly #limits: LogLimits;
  #offset: number;
  #rest = "";
  #cut = false;
  #allowance: number;
  #allowanceAtMs: number | undefined;
  readonly #decoder = new TextDecoder();
  #dropped = 0;

  constructor(options: { path: string; offset: number; limits: LogLimits }) {
    this.#path = options.path;
    this.#offset = options.offset;
    this.#limits = options.limits;
    this.#allowance = options.limits.linesPerSecondMax * burstSeconds;
  }

  /** Everything before this byte has been returned, except for an unfinished line. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * Returns whole lines written since the last poll, at most some hundred kilobytes of them; with
   * `final` also an unfinished last line. `dropped` counts lines beyond the rate limit.
   */
  poll(nowMs: number, final = false): { lines: string[]; dropped: number; more: boolean } {
    const { text, more } = this.#read();
    const parts = (this.#rest + text).split("\n");
    this.#rest = parts.pop() ?? "";
    const whole = parts.map((line) => this.#finish(line));
    if (this.#rest.length > this.#limits.lineBytesMax) {
      if (!this.#cut) whole.push(this.#clean(this.#rest));
      this.#cut = true;
      this.#rest = "";
    }
    if (final && !more && this.#rest !== "") {
      whole.push(this.#finish(this.#rest));
      this.#rest = "";
    }
    const lines = this.#limitRate(
      whole.filter((line) => line !== undefined),
      nowMs,
    );
    const dropped = this.#dropped;
    this.#dropped = 0;
    return { lines, dropped, more };
  }

  #read(): { text: string; more: boolean } {
    let file: number;
    try {
      file = openSync(this.#path, "r+");
    } catch {
      return { text: "", more: false };
    }
    try {
      const { size } = fstatSync(file);
      if (size < this.#offset) this.#offset = 0;
      const buffer = Buffer.alloc(Math.min(readBytesMax, size - this.#offset));
      const count = readSync(file, buffer, 0, buffer.length, this.#offset);
      this.#offset += count;
      const more = this.#offset < size;
      // The writer appends, so that it goes on at the new end of the emptied file.
      if (!more && size > this.#limits.fileBytesMax) {
        ftruncateSync(file, 0);
        this.#offset = 0;
      }
      return { text: this.#decoder.decode(buffer.subarray(0, count), { stream: true }), more };
    } finally {
      closeSync(file);
    }
  }

  /** The end of a line whose beginning was cut and returned already is left out. */
  #finish(line: string): string | undefined {
    if (this.#cut) {
      this.#cut = false;
      return undefined;
    }
    return this.#clean(line);
  }

  #clean(line: string): string {
    const max = this.#limits.lineBytesMax;
    const cut = line.length > max ? `${line.slice(0, max)} … (cut)` : line;
    return cut.endsWith("\r") ? cut.slice(0, -1) : cut;
  }

  #limitRate(lines: string[], nowMs: number): string[] {
    const { linesPerSecondMax } = this.#limits;
    const elapsedMs = nowMs - (this.#allowanceAtMs ?? nowMs);
    this.#allowanceAtMs = nowMs;
    this.#allowance = Math.min(
      linesPerSecondMax * burstSeconds,
      this.#allowance + (Math.max(0, elapsedMs) * linesPerSecondMax) / 1_000,
    );
    const kept = lines.slice(0, Math.floor(this.#allowance));
    this.#allowance -= kept.length;
    this.#dropped += lines.length - kept.length;
    return kept;
  }
}
