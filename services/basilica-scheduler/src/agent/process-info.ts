import { readdirSync, readFileSync } from "node:fs";

/** Clock ticks a second in /proc; 100 on every Linux that Node runs on (USER_HZ). */
const ticksPerSecond = 100;

/** One process as the kernel counts it. */
export interface ProcessInfo {
  readonly pid: number;
  readonly processGroup: number;
  /** Clock ticks from boot to start: together with the pid, names a process for good. */
  readonly startTicks: number;
  /** User and system time of the process and of its children that have ended. */
  readonly cpuMicros: number;
  readonly isZombie: boolean;
}

/** Memory of one process. */
export interface ProcessMemory {
  readonly rssBytes: number;
  /** High-water mark of resident memory (VmHWM). */
  readonly peakRssBytes: number;
}

/** Use of a process group at one moment. */
export interface GroupUse extends ProcessMemory {
  readonly cpuMicros: number;
}

/** Reads one process; undefined when there is none. Fields as in proc(5), /proc/pid/stat. */
export function readProcess(pid: number): ProcessInfo | undefined {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // The command name is in parentheses and may itself hold spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const field = (number: number): number => Number(fields[number - 3]);
  const ticks = field(14) + field(15) + field(16) + field(17);
  return {
    pid,
    processGroup: field(5),
    startTicks: field(22),
    cpuMicros: Math.round((ticks * 1_000_000) / ticksPerSecond),
    isZombie: fields[0] === "Z",
  };
}

/** Reads the memory of one process; undefined when there is none or it has ended. */
export function readMemory(pid: number): ProcessMemory | undefined {
  const text = readProc(`/proc/${pid}/status`);
  if (text === undefined) return undefined;
  const kibibytes = (name: string): number => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text);
    return match === null ? 0 : Number(match[1]);
  };
  return { rssBytes: kibibytes("VmRSS") * 1024, peakRssBytes: kibibytes("VmHWM") * 1024 };
}

/** Sums every process group in one pass over /proc. */
export function readGroups(groups: ReadonlySet<number>): Map<number, GroupUse> {
  const sums = new Map<number, GroupUse>();
  if (groups.size === 0) return sums;
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    const info = readProcess(pid);
    if (info === undefined || !groups.has(info.processGroup)) continue;
    const memory = readMemory(pid) ?? { rssBytes: 0, peakRssBytes: 0 };
    const sum = sums.get(info.processGroup) ?? { cpuMicros: 0, rssBytes: 0, peakRssBytes: 0 };
    sums.set(info.processGroup, {
      cpuMicros: sum.cpuMicros + info.cpuMicros,
      rssBytes: sum.rssBytes + memory.rssBytes,
      peakRssBytes: sum.peakRssBytes + memory.peakRssBytes,
    });
  }
  return sums;
}

/** True while exactly this process lives; a later process with the same pid does not count. */
export function isAlive(pid: number, startTicks: number): boolean {
  const info = readProcess(pid);
  return info !== undefined && info.startTicks === startTicks && !info.isZombie;
}

/** Identifies this boot of the machine; empty where the kernel does not tell. */
export function readBootId(): string {
  bootId ??= readProc("/proc/sys/kernel/random/boot_id")?.trim() ?? "";
  return bootId;
}

let bootId: string | undefined;

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // The process ended between listing and reading.
    return undefined;
  }
}
