import { openDatabase } from "@covenant/runtime";
import type { Generated, Kysely } from "kysely";

/** Tables of the validator. Blobs are protobuf messages or 32-byte hashes. */
export type Tables = {
  /** One row per opened round. */
  rounds: {
    round: number;
    /** RoundRecord as JSON. */
    record: string;
    trace_id: string;
    /** RoundManifest, once proposed: it is never replaced by another. */
    manifest: Uint8Array | null;
    /** SignedManifest, once a quorum has signed. */
    signed: Uint8Array | null;
    held_out_loss: number | null;
    /** CheckpointFacts as JSON, once the upload has begun. */
    checkpoint: string | null;
  };
  /** Accepted announcements; written before they are acknowledged. */
  announcements: {
    round: number;
    hotkey: string;
    request: Uint8Array;
    committed_block: number;
    committed_index: number;
    accepted_block: number;
  };
  /** Replay bundles (ExplainScoreResponse), one per judged peer and round. */
  verdicts: { round: number; hotkey: string; bundle: Uint8Array };
  /** Roots that peers reported. */
  applied: { round: number; hotkey: string; root: Uint8Array };
  /** Manifests this validator has put its signature under: at most one per round, ever. */
  signatures: {
    round: number;
    manifest_sha256: Uint8Array;
    /** SignedManifest with the proposer's and this validator's own signature. */
    signed: Uint8Array | null;
  };
  /** Single values by name. */
  facts: { name: string; value: string; updated: Generated<string> };
};

/** The validator's database. */
export type Database = Kysely<Tables>;

const MIGRATIONS = [
  {
    name: "001-rounds",
    sql: `
      create table rounds (round integer primary key, record text not null, trace_id text not null,
        manifest blob, signed blob, held_out_loss real, checkpoint text) strict;
      create table announcements (round integer not null, hotkey text not null,
        request blob not null, committed_block integer not null, committed_index integer not null,
        accepted_block integer not null, primary key (round, hotkey)) strict;
      create table verdicts (round integer not null, hotkey text not null, bundle blob not null,
        primary key (round, hotkey)) strict;
      create table applied (round integer not null, hotkey text not null, root blob not null,
        primary key (round, hotkey)) strict;
      create table signatures (round integer primary key, manifest_sha256 blob not null) strict;
      create table facts (name text primary key, value text not null,
        updated text not null default (datetime('now'))) strict;`,
  },
  { name: "002-signed-manifests", sql: "alter table signatures add column signed blob;" },
];

/** Opens the validator's database; throws COV_DATABASE_CORRUPT or COV_DISK_FULL. */
export function openValidatorDatabase(path: string): Database {
  return openDatabase<Tables>({ path, migrations: MIGRATIONS });
}
