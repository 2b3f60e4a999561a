import { mkdir } from "node:fs/promises";
import { CovenantError } from "@covenant/runtime";
import { type AppliedBlock, applyBlock } from "../state/apply.ts";
import type { Extrinsic } from "../state/extrinsic.ts";
import { type Genesis, genesisState } from "../state/genesis.ts";
import type { ChainState } from "../state/types.ts";
import { BlockHashes } from "./hashes.ts";
import { LogWriter, listSegments, readSegment, removeSegmentsBefore } from "./log.ts";
import { ReceiptIndex } from "./receipts.ts";
import { listSnapshots, readSnapshot, removeOldSnapshots, writeSnapshot } from "./snapshot.ts";

/** A block as the log keeps it. */
interface StoredBlock {
  number: number;
  hash: string;
  timeMs: number;
  entropy: string;
  extrinsics: Extrinsic[];
}

/** What opening a store found. */
export interface Recovery {
  snapshotBlock: number;
  replayedBlocks: number;
  /** Bytes of an unfinished, never acknowledged record that were cut off. */
  tornBytes: number;
}

/**
 * The chain on disk: an append-only log of blocks in segments, a snapshot now and then, and the
 * hashes of all blocks. A block exists once `append` has returned; whatever happens to the process,
 * opening the directory again gives exactly the appended blocks.
 */
export class ChainStore {
  readonly hashes: BlockHashes;
  readonly receipts: ReceiptIndex;
  readonly recovery: Recovery;
  readonly #directory: string;
  #state: ChainState;
  #writer: LogWriter;
  #snapshotBlock: number;

  private constructor(parts: {
    directory: string;
    hashes: BlockHashes;
    receipts: ReceiptIndex;
    recovery: Recovery;
    state: ChainState;
    writer: LogWriter;
  }) {
    this.#directory = parts.directory;
    this.hashes = parts.hashes;
    this.receipts = parts.receipts;
    this.recovery = parts.recovery;
    this.#state = parts.state;
    this.#writer = parts.writer;
    this.#snapshotBlock = parts.recovery.snapshotBlock;
  }

  /**
   * Opens or creates a chain's directory and brings its state back. The process must hold the
   * directory's lock (`runService` takes it): two producers on one log would fork the chain.
   * @throws COV_LEDGER_CHAIN_CHANGED, COV_LEDGER_LOG_CORRUPT
   */
  static async open(directory: string, genesis: Genesis): Promise<ChainStore> {
    await mkdir(directory, { recursive: true });
    let hashes: BlockHashes | undefined;
    try {
      const origin = genesisState(genesis);
      const snapshot = await newestSnapshot(directory, origin);
      const { head } = snapshot.state;
      hashes = await BlockHashes.open(directory, head.number, head.hash);
      const receipts = new ReceiptIndex({
        keepBlocks: origin.parameters.maxEraBlocks,
        receipts: snapshot.receipts,
      });
      const replayed = await replay(directory, snapshot.state, hashes, receipts);
      const firstBlock = replayed.lastSegment ?? replayed.state.head.number + 1;
      const writer = await LogWriter.open(directory, firstBlock, origin.genesisHash);
      const recovery = {
        snapshotBlock: head.number,
        replayedBlocks: replayed.state.head.number - head.number,
        tornBytes: replayed.tornBytes,
      };
      const { state } = replayed;
      return new ChainStore({ directory, hashes, receipts, recovery, state, writer });
    } catch (error) {
      await hashes?.close();
      throw error;
    }
  }

  /** The state after the last durable block. */
  get state(): ChainState {
    return this.#state;
  }

  /** Blocks since the last snapshot. */
  get blocksSinceSnapshot(): number {
    return this.#state.head.number - this.#snapshotBlock;
  }

  /** Makes the next block durable and only then part of the state. */
  async append(input: {
    timeMs: number;
    entropy: string;
    extrinsics: readonly Extrinsic[];
  }): Promise<AppliedBlock> {
    const applied = applyBlock(this.#state, input);
    const { number, hash, timeMs } = applied.state.head;
    const block = { number, hash, timeMs, entropy: input.entropy, extrinsics: input.extrinsics };
    await this.#writer.append(Buffer.from(JSON.stringify(block)));
    this.#state = applied.state;
    this.hashes.append(hash);
    this.receipts.add(number, applied.receipts);
    return applied;
  }

  /** Writes a snapshot, begins a new segment and removes what two snapshots make unnecessary. */
  async snapshot(): Promise<void> {
    const state = this.#state;
    await this.hashes.flush();
    await writeSnapshot(this.#directory, { state, receipts: this.receipts.all() });
    this.#snapshotBlock = state.head.number;
    const writer = await LogWriter.open(this.#directory, state.head.number + 1, state.genesisHash);
    await this.#writer.close();
    this.#writer = writer;
    const oldestSnapshot = await removeOldSnapshots(this.#directory);
    await removeSegmentsBefore(this.#directory, oldestSnapshot + 1);
  }

  /** Closes all files. */
  async close(): Promise<void> {
    await this.#writer.close();
    await this.hashes.close();
  }
}

async function newestSnapshot(directory: string, origin: ChainState) {
  const blocks = await listSnapshots(directory);
  for (const block of blocks) {
    const snapshot = await readSnapshot(directory, block, origin.genesisHash);
    if (snapshot !== undefined) return snapshot;
  }
  // Without any readable snapshot the log must reach back to block 1; replay checks that.
  return { state: origin, receipts: [] };
}

async function replay(
  directory: string,
  from: ChainState,
  hashes: BlockHashes,
  receipts: ReceiptIndex,
): Promise<{ state: ChainState; tornBytes: number; lastSegment: number | undefined }> {
  const segments = await listSegments(directory);
  let state = from;
  let tornBytes = 0;
  for (const [index, firstBlock] of segments.entries()) {
    const next = segments[index + 1];
    if (next !== undefined && next <= from.head.number + 1) continue;
    const isLast = next === undefined;
    const options = { genesisHash: from.genesisHash, isLast };
    const segment = await readSegment(directory, firstBlock, options);
    tornBytes += segment.tornBytes;
    for (const payload of segment.payloads) {
      const block = JSON.parse(Buffer.from(payload).toString("utf8")) as StoredBlock;
      if (block.number <= from.head.number) continue;
      const applied = replayBlock(state, block);
      state = applied.state;
      hashes.append(state.head.hash);
      receipts.add(state.head.number, applied.receipts);
    }
  }
  return { state, tornBytes, lastSegment: segments.at(-1) };
}

function replayBlock(state: ChainState, block: StoredBlock): AppliedBlock {
  const expected = state.head.number + 1;
  if (block.number !== expected) {
    throw corrupt(`block ${expected} is missing, the log goes on with ${block.number}`, expected);
  }
  let applied: AppliedBlock;
  try {
    applied = applyBlock(state, block);
  } catch (cause) {
    throw corrupt(`block ${block.number} cannot be applied again`, block.number, cause);
  }
  if (applied.state.head.hash !== block.hash) {
    throw corrupt(`block ${block.number} gives another hash than the log says`, block.number);
  }
  return applied;
}

function corrupt(message: string, block: number, cause?: unknown): CovenantError {
  return new CovenantError("COV_LEDGER_LOG_CORRUPT", message, {
    cause,
    metadata: { block: String(block) },
  });
}
