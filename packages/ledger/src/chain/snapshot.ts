import { createHash } from "node:crypto";
import { readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { CovenantError, readFileLimited, writeFileAtomic } from "@covenant/runtime";
import type { Receipt } from "../state/apply.ts";
import { canonicalJson, fromCanonicalJson } from "../state/canonical-json.ts";
import type { ChainState } from "../state/types.ts";

const SNAPSHOT_NAME = /^snapshot-(\d{12})\.json$/;
const SNAPSHOT_BYTES_MAX = 1 << 30;
const FORMAT = "covenant chain snapshot 1";
/** The newest, and one before it in case the newest is damaged. */
const SNAPSHOTS_KEPT = 2;

/** Everything needed to go on from a block without the log before it. */
export interface Snapshot {
  state: ChainState;
  /** Receipts of blocks whose extrinsics may still be sent again. */
  receipts: Receipt[];
}

/** Writes a snapshot in one piece: first line format and checksum, second line the value. */
export async function writeSnapshot(directory: string, snapshot: Snapshot): Promise<void> {
  const body = canonicalJson(snapshot);
  const text = `${FORMAT} ${checksum(body)}\n${body}`;
  await writeFileAtomic(snapshotPath(directory, snapshot.state.head.number), Buffer.from(text));
}

/** Blocks that have a snapshot, newest first. */
export async function listSnapshots(directory: string): Promise<number[]> {
  const blocks: number[] = [];
  for (const name of await readdir(directory)) {
    const match = SNAPSHOT_NAME.exec(name);
    if (match !== null) blocks.push(Number(match[1]));
  }
  return blocks.sort((a, b) => b - a);
}

/** Removes all but the newest snapshots; returns the oldest block that still has one. */
export async function removeOldSnapshots(directory: string): Promise<number> {
  const blocks = await listSnapshots(directory);
  for (const block of blocks.slice(SNAPSHOTS_KEPT)) await unlink(snapshotPath(directory, block));
  return blocks.slice(0, SNAPSHOTS_KEPT).at(-1) ?? 0;
}

/**
 * Reads a snapshot; undefined when its checksum does not match, so that the one before can be tried.
 * @throws COV_LEDGER_CHAIN_CHANGED when it belongs to another chain.
 */
export async function readSnapshot(
  directory: string,
  block: number,
  genesisHash: string,
): Promise<Snapshot | undefined> {
  const path = snapshotPath(directory, block);
  const text = Buffer.from(await readFileLimited(path, SNAPSHOT_BYTES_MAX)).toString("utf8");
  const lineEnd = text.indexOf("\n");
  const body = text.slice(lineEnd + 1);
  if (text.slice(0, Math.max(0, lineEnd)) !== `${FORMAT} ${checksum(body)}`) return undefined;
  const snapshot = fromCanonicalJson(body) as Snapshot;
  if (snapshot.state.genesisHash !== genesisHash) {
    throw new CovenantError("COV_LEDGER_CHAIN_CHANGED", `${path} belongs to another chain`, {
      metadata: { path },
    });
  }
  return snapshot;
}

function checksum(body: string): string {
  return createHash("sha256").update(body).digest("hex");
}

function snapshotPath(directory: string, block: number): string {
  return join(directory, `snapshot-${String(block).padStart(12, "0")}.json`);
}
