import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { bytesEqual } from "@covenant/contracts";
import {
  type AnnounceUpdateRequest,
  AnnounceUpdateRequestSchema,
  type ExplainScoreResponse,
  ExplainScoreResponseSchema,
  type RoundManifest,
  RoundManifestSchema,
  type SignedManifest,
  SignedManifestSchema,
} from "@covenant/contracts/gauntlet";
import { type GauntletState, initialGauntletState } from "@covenant/gauntlet";
import { manifestHash, type RoundRecord } from "@covenant/sparseloco";
import type { Database } from "./database.ts";
import type { Announcement } from "./fetch-updates.ts";

const GAUNTLET_FACT = "gauntlet";

/** A round as stored. */
export type StoredRound = {
  record: RoundRecord;
  traceId: string;
  manifest: RoundManifest | undefined;
  signed: SignedManifest | undefined;
  heldOutLoss: number | undefined;
};

/** A checkpoint's figures: fixed before the first upload, so that a repeated upload is the same one. */
export type CheckpointFacts = { createdAtMs: number; parent: string };

/** Everything the validator must not forget. Each method is one transaction. */
export class RoundBook {
  readonly #database: Database;

  constructor(modules: { database: Database }) {
    this.#database = modules.database;
  }

  /** Rounds from `from` on, ascending; at most `limit`. */
  async rounds(from: number, limit: number): Promise<StoredRound[]> {
    const rows = await this.#database
      .selectFrom("rounds")
      .selectAll()
      .where("round", ">=", from)
      .orderBy("round")
      .limit(limit)
      .execute();
    return rows.map((row) => ({
      record: JSON.parse(row.record) as RoundRecord,
      traceId: row.trace_id,
      manifest: row.manifest === null ? undefined : fromBinary(RoundManifestSchema, row.manifest),
      signed: row.signed === null ? undefined : fromBinary(SignedManifestSchema, row.signed),
      heldOutLoss: row.held_out_loss ?? undefined,
    }));
  }

  /** One round, or undefined. */
  async round(round: number): Promise<StoredRound | undefined> {
    const [found] = await this.rounds(round, 1);
    return found?.record.round === round ? found : undefined;
  }

  /** Number of the newest opened round; -1 before the first. */
  async newestRound(): Promise<number> {
    const row = await this.#database
      .selectFrom("rounds")
      .select(({ fn }) => fn.max("round").as("newest"))
      .executeTakeFirst();
    return (row?.newest as number | null | undefined) ?? -1;
  }

  /** Adds a round. */
  async openRound(record: RoundRecord, traceId: string): Promise<void> {
    await this.#database
      .insertInto("rounds")
      .values({ round: record.round, record: JSON.stringify(record), trace_id: traceId })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }

  /** Replaces a round's record. */
  async saveRecord(record: RoundRecord): Promise<void> {
    await this.#database
      .updateTable("rounds")
      .set({ record: JSON.stringify(record) })
      .where("round", "=", record.round)
      .execute();
  }

  /** Stores an announcement together with the round's record; a repeated one is kept as it was. */
  async saveAnnouncement(
    record: RoundRecord,
    announcement: Announcement,
    acceptedBlock: number,
  ): Promise<void> {
    const { announced, request } = announcement;
    await this.#database.transaction().execute(async (tx) => {
      await tx
        .insertInto("announcements")
        .values({
          round: record.round,
          hotkey: announced.hotkey,
          request: toBinary(AnnounceUpdateRequestSchema, request),
          committed_block: announced.committedBlock,
          committed_index: announced.committedIndex,
          accepted_block: acceptedBlock,
        })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
      await tx
        .updateTable("rounds")
        .set({ record: JSON.stringify(record) })
        .where("round", "=", record.round)
        .execute();
    });
  }

  /** Announcements of a round in the order of their commitments. */
  async announcements(round: number): Promise<(Announcement & { acceptedBlock: number })[]> {
    const rows = await this.#database
      .selectFrom("announcements")
      .selectAll()
      .where("round", "=", round)
      .orderBy("committed_block")
      .orderBy("committed_index")
      .execute();
    return rows.map((row) => ({
      announced: {
        hotkey: row.hotkey,
        committedBlock: row.committed_block,
        committedIndex: row.committed_index,
      },
      request: fromBinary(AnnounceUpdateRequestSchema, row.request) as AnnounceUpdateRequest,
      acceptedBlock: row.accepted_block,
    }));
  }

  /**
   * Makes a round's outcome final: manifest, bundles, scores and record in one transaction. A round is proposed once; a second, different
   * proposal is a fault of this program and refused.
   */
  async propose(outcome: {
    record: RoundRecord;
    manifest: RoundManifest;
    bundles: readonly ExplainScoreResponse[];
    gauntlet: GauntletState;
  }): Promise<void> {
    const { record, manifest, bundles, gauntlet } = outcome;
    const { round } = record;
    await this.#database.transaction().execute(async (tx) => {
      const known = await tx
        .selectFrom("rounds")
        .select("manifest")
        .where("round", "=", round)
        .executeTakeFirstOrThrow();
      if (known.manifest !== null) throw new Error(`round ${round} was proposed already`);
      await tx
        .updateTable("rounds")
        .set({
          manifest: toBinary(RoundManifestSchema, manifest),
          record: JSON.stringify(record),
        })
        .where("round", "=", round)
        .execute();
      for (const bundle of bundles) {
        await tx
          .insertInto("verdicts")
          .values({
            round,
            hotkey: bundle.verdict!.hotkey,
            bundle: toBinary(ExplainScoreResponseSchema, bundle),
          })
          .execute();
      }
      const value = JSON.stringify(gauntlet);
      await tx
        .insertInto("facts")
        .values({ name: GAUNTLET_FACT, value })
        .onConflict((conflict) => conflict.column("name").doUpdateSet({ value }))
        .execute();
    });
  }

  /**
   * Notes that this validator signs a manifest; false when it has signed another one for the round. Durable before the signature leaves
   * the process, so that no restart can make it sign two. The manifest is kept with the signatures known so far: should its proposer vanish,
   * whoever has signed it can gather the rest.
   */
  async claimSignature(signed: SignedManifest): Promise<boolean> {
    const manifest = signed.manifest!;
    const hash = manifestHash(manifest);
    return this.#database.transaction().execute(async (tx) => {
      const known = await tx
        .selectFrom("signatures")
        .select("manifest_sha256")
        .where("round", "=", manifest.round)
        .executeTakeFirst();
      if (known !== undefined) return bytesEqual(known.manifest_sha256, hash);
      await tx
        .insertInto("signatures")
        .values({
          round: manifest.round,
          manifest_sha256: hash,
          signed: toBinary(SignedManifestSchema, signed),
        })
        .execute();
      return true;
    });
  }

  /** The manifest this validator has signed for a round, with the signatures it knew of; undefined before. */
  async claimed(round: number): Promise<SignedManifest | undefined> {
    const row = await this.#database
      .selectFrom("signatures")
      .select("signed")
      .where("round", "=", round)
      .executeTakeFirst();
    return row?.signed ? fromBinary(SignedManifestSchema, row.signed) : undefined;
  }

  /** Stores the signed manifest with the round's record. */
  async saveSigned(record: RoundRecord, signed: SignedManifest): Promise<void> {
    await this.#database
      .updateTable("rounds")
      .set({
        signed: toBinary(SignedManifestSchema, signed),
        record: JSON.stringify(record),
      })
      .where("round", "=", record.round)
      .execute();
  }

  /** Stores the held-out loss measured after a round. */
  async saveHeldOutLoss(round: number, loss: number): Promise<void> {
    await this.#database
      .updateTable("rounds")
      .set({ held_out_loss: loss })
      .where("round", "=", round)
      .execute();
  }

  /** Replay bundles of a round, accepted ones included. */
  async bundles(round: number): Promise<ExplainScoreResponse[]> {
    const rows = await this.#database
      .selectFrom("verdicts")
      .select("bundle")
      .where("round", "=", round)
      .orderBy("hotkey")
      .execute();
    return rows.map(({ bundle }) => fromBinary(ExplainScoreResponseSchema, bundle));
  }

  /** The bundle of one verdict, or undefined. */
  async bundle(round: number, hotkey: string): Promise<ExplainScoreResponse | undefined> {
    const row = await this.#database
      .selectFrom("verdicts")
      .select("bundle")
      .where("round", "=", round)
      .where("hotkey", "=", hotkey)
      .executeTakeFirst();
    return row === undefined ? undefined : fromBinary(ExplainScoreResponseSchema, row.bundle);
  }

  /** Stores a root that a peer reported; a later report replaces it. */
  async saveApplied(round: number, hotkey: string, root: Uint8Array): Promise<void> {
    await this.#database
      .insertInto("applied")
      .values({ round, hotkey, root })
      .onConflict((conflict) => conflict.columns(["round", "hotkey"]).doUpdateSet({ root }))
      .execute();
  }

  /** Roots that peers reported for a round, by hotkey. */
  async appliedRoots(round: number): Promise<Record<string, Uint8Array>> {
    const rows = await this.#database
      .selectFrom("applied")
      .selectAll()
      .where("round", "=", round)
      .execute();
    return Object.fromEntries(rows.map(({ hotkey, root }) => [hotkey, new Uint8Array(root)]));
  }

  /** Scores after the last proposed round. */
  async gauntlet(): Promise<GauntletState> {
    const stored = await this.fact(GAUNTLET_FACT);
    return stored === undefined ? initialGauntletState() : (JSON.parse(stored) as GauntletState);
  }

  /** A checkpoint's fixed figures, or undefined before its upload began. */
  async checkpoint(round: number): Promise<CheckpointFacts | undefined> {
    const row = await this.#database
      .selectFrom("rounds")
      .select("checkpoint")
      .where("round", "=", round)
      .executeTakeFirst();
    return row?.checkpoint ? (JSON.parse(row.checkpoint) as CheckpointFacts) : undefined;
  }

  /** Stores a checkpoint's figures. */
  async saveCheckpoint(round: number, facts: CheckpointFacts): Promise<void> {
    await this.#database
      .updateTable("rounds")
      .set({ checkpoint: JSON.stringify(facts) })
      .where("round", "=", round)
      .execute();
  }

  /** A single stored value. */
  async fact(name: string): Promise<string | undefined> {
    const row = await this.#database
      .selectFrom("facts")
      .select("value")
      .where("name", "=", name)
      .executeTakeFirst();
    return row?.value;
  }

  /** Replaces a single stored value. */
  async saveFact(name: string, value: string): Promise<void> {
    await this.#database
      .insertInto("facts")
      .values({ name, value })
      .onConflict((conflict) => conflict.column("name").doUpdateSet({ value }))
      .execute();
  }

  /** Hotkeys that announced in a range of rounds (inclusive). */
  async announcers(fromRound: number, toRound: number): Promise<Set<string>> {
    const rows = await this.#database
      .selectFrom("announcements")
      .select("hotkey")
      .distinct()
      .where("round", ">=", fromRound)
      .where("round", "<=", toRound)
      .execute();
    return new Set(rows.map(({ hotkey }) => hotkey));
  }
}
