import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { CovenantError } from "@covenant/runtime";

const HASH_BYTES = 32;

/**
 * Hashes of all blocks, 32 bytes each, in one flat file. The newest ones live in memory and are
 * flushed before each snapshot; the log brings them back after a crash.
 */
export class BlockHashes {
  readonly #file: FileHandle;
  /** Blocks 0 … #flushed − 1 are in the file. */
  #flushed: number;
  #recent: Buffer[] = [];

  private constructor(file: FileHandle, flushed: number) {
    this.#file = file;
    this.#flushed = flushed;
  }

  /**
   * Opens the file of a chain whose snapshot ends with block `head` (0: no snapshot).
   * @throws COV_LEDGER_LOG_CORRUPT when the file is shorter than the snapshot promises.
   */
  static async open(directory: string, head: number, headHash: string): Promise<BlockHashes> {
    const path = join(directory, "block-hashes");
    const file = await open(path, "a+");
    const { size } = await file.stat();
    const wantedBytes = (head + 1) * HASH_BYTES;
    const hashes = new BlockHashes(file, head + 1);
    if (head === 0 && size < wantedBytes) {
      await file.truncate(0);
      hashes.#flushed = 0;
      hashes.append(headHash);
      return hashes;
    }
    if (size > wantedBytes) await file.truncate(wantedBytes);
    if (size < wantedBytes || (await hashes.at(head))?.toString("hex") !== headHash) {
      await file.close();
      throw new CovenantError("COV_LEDGER_LOG_CORRUPT", `${path} does not match the snapshot`, {
        metadata: { path },
      });
    }
    return hashes;
  }

  /** Number of the next block to be appended. */
  get count(): number {
    return this.#flushed + this.#recent.length;
  }

  /** Adds the next block's hash (hexadecimal). */
  append(hash: string): void {
    this.#recent.push(Buffer.from(hash, "hex"));
  }

  /** Hash of a block; undefined for blocks that are not there yet. */
  async at(block: number): Promise<Buffer | undefined> {
    if (block < 0 || block >= this.count) return undefined;
    if (block >= this.#flushed) return this.#recent[block - this.#flushed];
    const hash = Buffer.alloc(HASH_BYTES);
    const { bytesRead } = await this.#file.read(hash, 0, HASH_BYTES, block * HASH_BYTES);
    return bytesRead === HASH_BYTES ? hash : undefined;
  }

  /** Makes all hashes up to now durable. */
  async flush(): Promise<void> {
    const flushing = this.#recent.length;
    await this.#file.truncate(this.#flushed * HASH_BYTES);
    await this.#file.appendFile(Buffer.concat(this.#recent.slice(0, flushing)));
    await this.#file.datasync();
    this.#flushed += flushing;
    this.#recent = this.#recent.slice(flushing);
  }

  /** Closes the file. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}
