import { type FileHandle, open, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { CovenantError, readFileLimited, syncDirectory } from "@covenant/runtime";
import { encodeRecord, scanRecords } from "./record.ts";

const HEADER_TEXT = "covenant chain log 1 ";
const SEGMENT_NAME = /^blocks-(\d{12})\.log$/;
/** Largest segment that is read at start; a snapshot begins a new one long before. */
const SEGMENT_BYTES_MAX = 2 ** 31 - 1;

/** What a segment holds, and how its end was found. */
export interface ReadSegment {
  firstBlock: number;
  payloads: Uint8Array[];
  /** Bytes of an unfinished last record that were cut off. */
  tornBytes: number;
}

/** First blocks of the log's segments, ascending. */
export async function listSegments(directory: string): Promise<number[]> {
  const blocks: number[] = [];
  for (const name of await readdir(directory)) {
    const match = SEGMENT_NAME.exec(name);
    if (match !== null) blocks.push(Number(match[1]));
  }
  return blocks.sort((a, b) => a - b);
}

/**
 * Reads a segment. An unfinished last record is cut off: it was never acknowledged.
 * @throws COV_LEDGER_LOG_CORRUPT when a record in the middle is unreadable, or when any is in a
 * segment that is not the last, and COV_LEDGER_CHAIN_CHANGED when it is another chain's log.
 */
export async function readSegment(
  directory: string,
  firstBlock: number,
  options: { genesisHash: string; isLast: boolean },
): Promise<ReadSegment> {
  const path = segmentPath(directory, firstBlock);
  const file = Buffer.from(await readFileLimited(path, SEGMENT_BYTES_MAX));
  const header = headerOf(options.genesisHash);
  if (file.length < header.length && options.isLast) {
    // The crash came before the header was durable, so no block can be in the file.
    await unlink(path);
    return { firstBlock, payloads: [], tornBytes: file.length };
  }
  if (!file.subarray(0, header.length).equals(header)) {
    throw new CovenantError("COV_LEDGER_CHAIN_CHANGED", `${path} belongs to another chain`, {
      metadata: { path },
    });
  }
  const scanned = scanRecords(file, header.length);
  if (scanned.tail === "corrupt" || (scanned.tail === "torn" && !options.isLast)) {
    const offset = String(scanned.endOffset);
    throw new CovenantError(
      "COV_LEDGER_LOG_CORRUPT",
      `${path} is damaged at byte ${offset}, with later blocks behind the damage`,
      { metadata: { path, offset } },
    );
  }
  const tornBytes = file.length - scanned.endOffset;
  if (tornBytes > 0) await truncate(path, scanned.endOffset);
  return { firstBlock, payloads: scanned.payloads, tornBytes };
}

/** Removes segments that only hold blocks before `block`, given that a later one begins there. */
export async function removeSegmentsBefore(directory: string, block: number): Promise<void> {
  const blocks = await listSegments(directory);
  for (const [index, firstBlock] of blocks.entries()) {
    const next = blocks[index + 1];
    if (next !== undefined && next <= block) await unlink(segmentPath(directory, firstBlock));
  }
}

/** The segment being written. Not for concurrent use: the caller appends one record at a time. */
export class LogWriter {
  readonly firstBlock: number;
  readonly #file: FileHandle;
  #durableBytes: number;
  #failed = false;

  private constructor(firstBlock: number, file: FileHandle, durableBytes: number) {
    this.firstBlock = firstBlock;
    this.#file = file;
    this.#durableBytes = durableBytes;
  }

  /** Opens a segment for appending, creating it durably when it does not exist. */
  static async open(
    directory: string,
    firstBlock: number,
    genesisHash: string,
  ): Promise<LogWriter> {
    const file = await open(segmentPath(directory, firstBlock), "a");
    try {
      let { size } = await file.stat();
      if (size === 0) {
        const header = headerOf(genesisHash);
        await file.appendFile(header);
        await file.sync();
        await syncDirectory(directory);
        size = header.length;
      }
      return new LogWriter(firstBlock, file, size);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Appends a record; returns when it is on the disk. After a failure the file is cut back to its
   * last durable record, so that the same block can be made again.
   * @throws COV_DISK_FULL, or COV_LEDGER_LOG_UNWRITABLE when the cut fails too: stop then.
   */
  async append(payload: Uint8Array): Promise<void> {
    if (this.#failed) throw this.#unwritable();
    const record = encodeRecord(payload);
    try {
      await this.#file.appendFile(record);
      await this.#file.datasync();
      this.#durableBytes += record.length;
    } catch (cause) {
      await this.#cutBack();
      if ((cause as NodeJS.ErrnoException).code === "ENOSPC") {
        throw new CovenantError("COV_DISK_FULL", "no space for the next block", { cause });
      }
      // A failed sync leaves unknown what the disk holds: going on could fork the chain.
      this.#failed = true;
      throw this.#unwritable(cause);
    }
  }

  /** Closes the file. */
  async close(): Promise<void> {
    await this.#file.close();
  }

  async #cutBack(): Promise<void> {
    try {
      await this.#file.truncate(this.#durableBytes);
      await this.#file.sync();
    } catch (cause) {
      this.#failed = true;
      throw this.#unwritable(cause);
    }
  }

  #unwritable(cause?: unknown): CovenantError {
    return new CovenantError("COV_LEDGER_LOG_UNWRITABLE", "the block log cannot be written", {
      cause,
    });
  }
}

async function truncate(path: string, bytes: number): Promise<void> {
  const file = await open(path, "r+");
  try {
    await file.truncate(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

function segmentPath(directory: string, firstBlock: number): string {
  return join(directory, `blocks-${String(firstBlock).padStart(12, "0")}.log`);
}

function headerOf(genesisHash: string): Buffer {
  return Buffer.from(`${HEADER_TEXT}${genesisHash}\n`);
}
