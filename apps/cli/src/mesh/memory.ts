// Memory of the whole mesh: the sum over every process below this one, sampled.
import { readdirSync, readFileSync } from "node:fs";

interface ProcessInfo {
  parent: number;
  rssBytes: number;
}

const pageBytes = 4096;

function readProcess(pid: string): ProcessInfo | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { parent: Number(fields[1]), rssBytes: Number(fields[21]) * pageBytes };
  } catch {
    // It ended between the listing and the look.
    return undefined;
  }
}

/**
 * Resident bytes of the process `rootPid`, of `alsoPids`, and of all their descendants. Pages that several
 * processes share are counted for each of them, so the figure is an upper bound.
 */
export function residentBytes(rootPid: number, alsoPids: readonly number[] = []): number {
  const processes = new Map<number, ProcessInfo>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const info = readProcess(name);
    if (info) processes.set(Number(name), info);
  }
  const belongs = new Set([rootPid, ...alsoPids]);
  // Parents can come after children in the listing: repeat until nothing new is found.
  for (let grew = true; grew; ) {
    grew = false;
    for (const [pid, info] of processes) {
      if (belongs.has(pid) || !belongs.has(info.parent)) continue;
      belongs.add(pid);
      grew = true;
    }
  }
  let total = 0;
  for (const pid of belongs) total += processes.get(pid)?.rssBytes ?? 0;
  return total;
}

/** Samples the mesh's memory until stopped and remembers the peak. */
export class MemoryWatch {
  #peakBytes = 0;
  readonly #timer: NodeJS.Timeout;

  constructor(options: { rootPid: number; everyMs: number; alsoPids: () => number[] }) {
    const sample = () => {
      this.#peakBytes = Math.max(
        this.#peakBytes,
        residentBytes(options.rootPid, options.alsoPids()),
      );
    };
    sample();
    this.#timer = setInterval(sample, options.everyMs);
    this.#timer.unref();
  }

  /** Largest sum seen so far. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
