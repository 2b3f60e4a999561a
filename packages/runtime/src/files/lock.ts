/** One process a data directory. */

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { CovenantError } from "../errors/covenant-error.ts";
import { fromFileError } from "./files.ts";

/** Name of the lock file in the directory. */
export const LOCK_FILE = "process.lock";

/** A held lock. */
export interface DirectoryLock {
  /** Lets go; harmless when repeated. */
  release(): void;
}

interface Holder {
  pid: number;
  /** Clock ticks since boot at which the process started; empty where /proc is missing. */
  startTime: string;
}

/**
 * Takes the directory for this process, creating it if needed. A lock whose process is gone, or whose
 * number now belongs to another process, is taken over. Throws COV_DATA_DIRECTORY_IN_USE otherwise.
 */
export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  try {
    mkdirSync(directory, { recursive: true });
  } catch (error) {
    throw fromFileError(error, directory);
  }
  const path = join(await realpath(directory), LOCK_FILE);
  const self: Holder = { pid: process.pid, startTime: await startTimeOf(process.pid) };
  for (let attempt = 0; attempt < 3; attempt++) {
    if (tryCreate(path, self)) return heldLock(path, self);
    const holder = readHolder(path);
    if (holder && (await isAlive(holder))) throw inUse(directory, holder);
    takeAside(path);
  }
  throw inUse(directory, readHolder(path));
}

function tryCreate(path: string, self: Holder): boolean {
  let file: number;
  try {
    file = openSync(path, "wx", 0o644);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw fromFileError(error, path);
  }
  try {
    writeSync(file, `${JSON.stringify(self)}\n`);
    fsyncSync(file);
    return true;
  } catch (error) {
    rmSync(path, { force: true });
    throw fromFileError(error, path);
  } finally {
    closeSync(file);
  }
}

/** A stale lock is renamed before it is removed: of two that find it stale, one rename succeeds. */
function takeAside(path: string): void {
  const aside = `${path}.stale-${process.pid}`;
  try {
    renameSync(path, aside);
    rmSync(aside, { force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw fromFileError(error, path);
  }
}

function readHolder(path: string): Holder | undefined {
  try {
    const { pid, startTime } = JSON.parse(readFileSync(path, "utf8")) as Holder;
    return Number.isInteger(pid) && typeof startTime === "string" ? { pid, startTime } : undefined;
  } catch {
    // Gone meanwhile, or half written by a process that died: stale either way.
    return undefined;
  }
}

async function isAlive(holder: Holder): Promise<boolean> {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const startTime = await startTimeOf(holder.pid);
  return startTime === "" || holder.startTime === "" || startTime === holder.startTime;
}

/** Field 22 of /proc/pid/stat; the command name before it may contain spaces and parentheses. */
async function startTimeOf(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}

function heldLock(path: string, self: Holder): DirectoryLock {
  return {
    release() {
      const holder = readHolder(path);
      if (holder?.pid === self.pid && holder.startTime === self.startTime) {
        rmSync(path, { force: true });
      }
    },
  };
}

function inUse(directory: string, holder: Holder | undefined): CovenantError {
  const who = holder ? `process ${holder.pid}` : "another process";
  return new CovenantError("COV_DATA_DIRECTORY_IN_USE", `${directory} is in use by ${who}`, {
    metadata: { directory, pid: holder?.pid ?? 0 },
  });
}
