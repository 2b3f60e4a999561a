// The index: which checkpoints are visible, which uploads are open, which chunks are stored and who needs them.
import type { Generated } from "kysely";

/** A visible checkpoint. Hashes are hexadecimal, so that people can query the index. */
export interface CheckpointTable {
  sequence: Generated<number>;
  root: string;
  run_id: string;
  kind: number;
  stage: number;
  version: number;
  parent_root: string;
  signer: string;
  /** 1 when a service or the operator uploaded it: such a one replaces a participant's of the same root. */
  trusted: number;
  /** Canonical bytes. */
  manifest: Uint8Array;
  stored_bytes: number;
  pinned: number;
  committed_at_ms: number;
}

/** An upload, open or committed; committed ones stay for a while so that repeating the commit is harmless. */
export interface UploadTable {
  upload_id: string;
  owner: string;
  trusted: number;
  root: string;
  manifest: Uint8Array;
  /** Sequence of the checkpoint; null while open. */
  committed_sequence: number | null;
  expires_at_ms: number;
}

/** A chunk whose bytes are durable in the object store. */
export interface ChunkTable {
  sha256: string;
  size_bytes: number;
}

/** Who needs a chunk: "c:<root>" or "u:<upload id>". A chunk that nobody needs is garbage. */
export interface ChunkHolderTable {
  holder: string;
  sha256: string;
}

/** The tables. */
export interface RegistryTables {
  checkpoints: CheckpointTable;
  uploads: UploadTable;
  chunks: ChunkTable;
  chunk_holders: ChunkHolderTable;
}

/** Applied in order, each once. Never edited after a release: a change is a new entry. */
export const MIGRATIONS = [
  {
    name: "0001-registry",
    sql: `
      CREATE TABLE checkpoints (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        root TEXT NOT NULL UNIQUE,
        run_id TEXT NOT NULL,
        kind INTEGER NOT NULL,
        stage INTEGER NOT NULL,
        version INTEGER NOT NULL,
        parent_root TEXT NOT NULL,
        signer TEXT NOT NULL,
        trusted INTEGER NOT NULL,
        manifest BLOB NOT NULL,
        stored_bytes INTEGER NOT NULL,
        pinned INTEGER NOT NULL,
        committed_at_ms INTEGER NOT NULL
      );
      CREATE INDEX checkpoints_by_run ON checkpoints (run_id, sequence);
      CREATE TABLE uploads (
        upload_id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        trusted INTEGER NOT NULL,
        root TEXT NOT NULL,
        manifest BLOB NOT NULL,
        committed_sequence INTEGER,
        expires_at_ms INTEGER NOT NULL
      );
      CREATE INDEX uploads_by_owner ON uploads (owner, root);
      CREATE TABLE chunks (
        sha256 TEXT PRIMARY KEY,
        size_bytes INTEGER NOT NULL
      );
      CREATE TABLE chunk_holders (
        holder TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        PRIMARY KEY (holder, sha256)
      );
      CREATE INDEX chunk_holders_by_chunk ON chunk_holders (sha256);
    `,
  },
];
