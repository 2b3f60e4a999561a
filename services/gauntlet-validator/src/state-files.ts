import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { bytesEqual } from "@covenant/contracts";
import { stateRoot, type TensorInfo } from "@covenant/kernels";
import { CovenantError, hasCode, readFileLimited, writeFileAtomic } from "@covenant/runtime";

/** Parameters of this many rounds are kept: the newest and its predecessor, from which a round can be repeated. */
const STATES_KEPT = 2;
/** A merged update holds positions and exact values of at most all parameters, plus its tables. */
const MERGED_BYTES_PER_PARAMETER = 9;

/** What the files hold. */
export type StateFilesOptions = {
  directory: string;
  tensors: readonly TensorInfo[];
  parameterCount: number;
  mergedRoundsKept: number;
};

/** Parameters after each round and merged updates, as files of the data directory. */
export class StateFiles {
  readonly #options: StateFilesOptions;
  readonly #pinned = new Set<number>();

  constructor(options: StateFilesOptions) {
    this.#options = options;
  }

  #path(kind: "state" | "merged", round: number): string {
    return join(this.#options.directory, kind, `${round}.bin`);
  }

  /** Keeps the parameters after a round until they are released: a checkpoint is to be made of them. */
  pin(round: number): void {
    this.#pinned.add(round);
  }

  /** Lets the parameters after a round go with the others. */
  release(round: number): void {
    this.#pinned.delete(round);
  }

  /** Stores the parameters after a round; durable when it returns. */
  async saveParameters(round: number, parameters: Float32Array): Promise<void> {
    const { buffer, byteOffset, byteLength } = parameters;
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    await writeFileAtomic(this.#path("state", round), bytes);
    await this.#prune("state", round - STATES_KEPT);
  }

  /** The parameters after a round, checked against their root. Throws COV_STATE_CORRUPT when they differ. */
  async loadParameters(round: number, root: Uint8Array): Promise<Float32Array> {
    const path = this.#path("state", round);
    const size = this.#options.parameterCount * 4;
    const bytes = await readFileLimited(path, size);
    if (bytes.length === size) {
      const parameters = new Float32Array(new Uint8Array(bytes).buffer);
      const actual = await stateRoot(parameters, this.#options.tensors);
      if (bytesEqual(actual, root)) return parameters;
    }
    throw new CovenantError("COV_STATE_CORRUPT", `${path} does not hold the state of its round`, {
      remedy: "Restore the file from a backup, or remove the data directory to judge a new run.",
      metadata: { path, round },
    });
  }

  /** Stores a merged update and drops those too old to be kept. */
  async saveMerged(round: number, merged: Uint8Array): Promise<void> {
    await writeFileAtomic(this.#path("merged", round), merged);
    await this.#prune("merged", round - this.#options.mergedRoundsKept);
  }

  /** A merged update; throws COV_ROUND_PRUNED when it is no longer kept. */
  async loadMerged(round: number): Promise<Uint8Array> {
    const limit = this.#options.parameterCount * MERGED_BYTES_PER_PARAMETER + 1024 * 1024;
    try {
      return await readFileLimited(this.#path("merged", round), limit);
    } catch (error) {
      if (!hasCode(error, "COV_FILE_NOT_FOUND")) throw error;
      throw new CovenantError("COV_ROUND_PRUNED", `merged update of round ${round} is not kept`, {
        metadata: { round },
      });
    }
  }

  async #prune(kind: "state" | "merged", lastRound: number): Promise<void> {
    const directory = join(this.#options.directory, kind);
    await mkdir(directory, { recursive: true });
    for (const name of await readdir(directory)) {
      const round = /^(-?\d+)\.bin$/.exec(name)?.[1];
      if (round === undefined || Number(round) > lastRound) continue;
      if (kind === "state" && this.#pinned.has(Number(round))) continue;
      await rm(join(directory, name));
    }
  }
}
