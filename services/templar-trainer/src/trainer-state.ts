import { rename } from "node:fs/promises";
import { join } from "node:path";
import { fromHex, toHex } from "@covenant/contracts";
import { CovenantError, hasCode, readFileLimited, writeFileAtomic } from "@covenant/runtime";
import { decodeContainer, encodeContainer, floatBytes, floatsOf } from "./container.ts";

/** Everything a peer carries from round to round. Float arrays are owned by the state. */
export type TrainerState = {
  /** Round to train next. */
  round: number;
  /** Root of `theta`. */
  stateRoot: Uint8Array;
  /** Hash of the manifest that led here; undefined when it was never seen. */
  previousManifestSha256: Uint8Array | undefined;
  theta: Float32Array;
  firstMoment: Float32Array;
  secondMoment: Float32Array;
  errorFeedback: Float32Array;
  optimizerStepCount: number;
};

/** An update that was made but not settled: kept, so that a peer never makes a second one for the same round. */
export type PendingUpdate = {
  round: number;
  baseRoot: Uint8Array;
  payload: Uint8Array;
  firstMoment: Float32Array;
  secondMoment: Float32Array;
  errorFeedback: Float32Array;
  optimizerStepCount: number;
};

type Header = {
  kind: "state" | "pending";
  runId: string;
  hotkey: string;
  round: number;
  root: string;
  previous: string | null;
  optimizerStepCount: number;
};

/** Whose files these are; a file of another run or hotkey is refused. */
export type StateOwner = { runId: string; hotkey: string; parameterCount: number };

const SECTIONS = ["firstMoment", "secondMoment", "errorFeedback"] as const;

/** The trainer's two files in its data directory. */
export class StateFiles {
  readonly #directory: string;
  readonly #owner: StateOwner;

  constructor(directory: string, owner: StateOwner) {
    this.#directory = directory;
    this.#owner = owner;
  }

  get #statePath(): string {
    return join(this.#directory, "trainer.state");
  }

  get #pendingPath(): string {
    return join(this.#directory, "trainer.pending");
  }

  get #bytesMax(): number {
    return this.#owner.parameterCount * 16 + 64 * 1024 * 1024;
  }

  /** Replaces the state in one step; durable when it returns. */
  async saveState(state: TrainerState): Promise<void> {
    const previous = state.previousManifestSha256;
    const header = this.#header("state", state, state.stateRoot, previous ? toHex(previous) : null);
    const sections = new Map<string, Uint8Array>([["theta", floatBytes(state.theta)]]);
    for (const name of SECTIONS) sections.set(name, floatBytes(state[name]));
    await writeFileAtomic(this.#statePath, encodeContainer({ header, sections }));
  }

  /** Replaces the pending update in one step; durable when it returns. */
  async savePending(pending: PendingUpdate): Promise<void> {
    const header = this.#header("pending", pending, pending.baseRoot, null);
    const sections = new Map<string, Uint8Array>([["payload", pending.payload]]);
    for (const name of SECTIONS) sections.set(name, floatBytes(pending[name]));
    await writeFileAtomic(this.#pendingPath, encodeContainer({ header, sections }));
  }

  /** The saved state, or undefined when there is none. Throws COV_STATE_CORRUPT when it cannot be trusted. */
  async loadState(): Promise<TrainerState | undefined> {
    const loaded = await this.#load(this.#statePath, "state");
    if (loaded === undefined) return undefined;
    const { header, floats } = loaded;
    return {
      round: header.round,
      stateRoot: fromHex(header.root),
      previousManifestSha256: header.previous === null ? undefined : fromHex(header.previous),
      theta: floats("theta"),
      firstMoment: floats("firstMoment"),
      secondMoment: floats("secondMoment"),
      errorFeedback: floats("errorFeedback"),
      optimizerStepCount: header.optimizerStepCount,
    };
  }

  /** The pending update, or undefined when there is none. Throws COV_STATE_CORRUPT when it cannot be trusted. */
  async loadPending(): Promise<PendingUpdate | undefined> {
    const loaded = await this.#load(this.#pendingPath, "pending");
    if (loaded === undefined) return undefined;
    const { header, floats, section } = loaded;
    return {
      round: header.round,
      baseRoot: fromHex(header.root),
      payload: section("payload"),
      firstMoment: floats("firstMoment"),
      secondMoment: floats("secondMoment"),
      errorFeedback: floats("errorFeedback"),
      optimizerStepCount: header.optimizerStepCount,
    };
  }

  /** Moves both files aside, so that a fresh start does not meet them again; they stay for inspection. */
  async setAside(): Promise<void> {
    for (const path of [this.#statePath, this.#pendingPath]) {
      await rename(path, `${path}.corrupt`).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
      });
    }
  }

  #header(
    kind: Header["kind"],
    from: { round: number; optimizerStepCount: number },
    root: Uint8Array,
    previous: string | null,
  ): Header {
    const { runId, hotkey } = this.#owner;
    const { round, optimizerStepCount } = from;
    return { kind, runId, hotkey, round, root: toHex(root), previous, optimizerStepCount };
  }

  async #load(path: string, kind: Header["kind"]) {
    let bytes: Uint8Array;
    try {
      bytes = await readFileLimited(path, this.#bytesMax);
    } catch (error) {
      if (hasCode(error, "COV_FILE_NOT_FOUND")) return undefined;
      throw corrupt(path, "it cannot be read", error);
    }
    try {
      const { header, sections } = decodeContainer<Header>(bytes);
      const { runId, hotkey, parameterCount } = this.#owner;
      if (header.kind !== kind) throw new Error(`holds a ${header.kind}`);
      if (header.runId !== runId || header.hotkey !== hotkey) {
        throw new Error(`belongs to run ${header.runId} and hotkey ${header.hotkey}`);
      }
      const section = (name: string): Uint8Array => {
        const found = sections.get(name);
        if (found === undefined) throw new Error(`section ${name} is missing`);
        return found;
      };
      const floats = (name: string) => floatsOf(section(name), parameterCount);
      for (const name of SECTIONS) floats(name);
      return { header, section, floats };
    } catch (error) {
      throw corrupt(path, (error as Error).message, error);
    }
  }
}

function corrupt(path: string, why: string, cause: unknown): CovenantError {
  return new CovenantError("COV_STATE_CORRUPT", `${path} is unusable: ${why}`, {
    remedy:
      "The trainer sets it aside and rebuilds its state from a checkpoint and merged updates.",
    metadata: { path },
    cause,
  });
}
