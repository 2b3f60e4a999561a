import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Receipt } from "@covenant/contracts/grail";
import { ReceiptSchema } from "@covenant/contracts/grail";
import { CovenantError, hasCode, readFileLimited, writeFileAtomic } from "@covenant/runtime";

const receiptBytesMax = 16 * 1024 * 1024;
const idPattern = /^[A-Za-z0-9_-]{8,64}$/;

/** Receipts on disk, one file each; the oldest go when there are more than `max`. */
export class ReceiptStore {
  readonly #directory: string;
  readonly #max: number;
  /** File names, oldest first. */
  readonly #names: Set<string>;

  constructor(options: { directory: string; max: number }) {
    this.#directory = options.directory;
    this.#max = options.max;
    mkdirSync(this.#directory, { recursive: true });
    const files = readdirSync(this.#directory)
      .filter((name) => name.endsWith(".pb"))
      .map((name) => ({ name, modifiedAtMs: statSync(join(this.#directory, name)).mtimeMs }))
      .sort((a, b) => a.modifiedAtMs - b.modifiedAtMs);
    this.#names = new Set(files.map((file) => file.name));
  }

  /** True for ids that can name a completion. */
  static isId(id: string): boolean {
    return idPattern.test(id);
  }

  /** True when receipts of the completion are held already. */
  has(completionId: string): boolean {
    return this.#names.has(fileName(completionId, 0));
  }

  async put(completionId: string, choice: number, receipt: Receipt): Promise<void> {
    const name = fileName(completionId, choice);
    await writeFileAtomic(join(this.#directory, name), toBinary(ReceiptSchema, receipt));
    this.#names.add(name);
    while (this.#names.size > this.#max) {
      const [oldest] = this.#names;
      if (oldest === undefined) break;
      this.#names.delete(oldest);
      rmSync(join(this.#directory, oldest), { force: true });
    }
  }

  /** Throws COV_RECEIPT_NOT_FOUND. */
  async get(completionId: string, choice: number): Promise<Receipt> {
    const message = `there is no receipt of ${completionId}, choice ${choice}`;
    if (!ReceiptStore.isId(completionId)) throw new CovenantError("COV_RECEIPT_NOT_FOUND", message);
    const path = join(this.#directory, fileName(completionId, choice));
    try {
      return fromBinary(ReceiptSchema, await readFileLimited(path, receiptBytesMax));
    } catch (error) {
      if (!hasCode(error, "COV_FILE_NOT_FOUND")) throw error;
      throw new CovenantError("COV_RECEIPT_NOT_FOUND", message);
    }
  }
}

function fileName(completionId: string, choice: number): string {
  return `${completionId}.${choice}.pb`;
}
