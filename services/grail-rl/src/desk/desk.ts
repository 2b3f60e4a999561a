// Where rollout workers get work and hand it in. Whatever is acknowledged is on disk.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { bytesEqual } from "@covenant/contracts";
import {
  type CommitGroupRequest,
  CommitGroupRequestSchema,
  type GroupAssignment,
  type GroupVerdict,
  GroupVerdictSchema,
  type RolloutContract,
  type SubmitGroupsRequest,
  SubmitGroupsRequestSchema,
} from "@covenant/contracts/grail";
import {
  type AssignmentRules,
  assignSlots,
  buildAssignment,
  commitGroup,
  expireGroups,
  type GroupFault,
  groupSizeMax,
  submitGroup,
} from "@covenant/grail";
import { CovenantError } from "@covenant/runtime";
import { Serial, SignalBox } from "../state/signal-box.ts";
import type { GroupRow, Store } from "../state/store.ts";

/** A contract with the groups handed out under it. */
export interface OpenContract {
  jobId: string;
  contract: RolloutContract;
  slots: number;
}

/** What the desk asks of the ledger. */
export interface DeskLedger {
  headBlock(): Promise<number>;
}

/** Deadlines and bounds of the desk; see the configuration's `rollouts`. */
export type DeskRules = Omit<AssignmentRules, "slots">;

const commitBytesMax = 8 << 20;

/**
 * The desk of one contract at a time. All changes go through one queue and reach the database before
 * the caller hears of them; the copy in memory is what the database holds.
 */
export class Desk {
  readonly #rules: DeskRules;
  readonly #store: Store;
  readonly #ledger: DeskLedger;
  readonly #serial = new Serial();
  readonly #groups = new Map<string, GroupRow>();
  #open: OpenContract | undefined;
  /** Told of every change of a group. */
  readonly changes = new SignalBox();

  constructor(rules: DeskRules, modules: { store: Store; ledger: DeskLedger }) {
    this.#rules = rules;
    this.#store = modules.store;
    this.#ledger = modules.ledger;
  }

  /** Opens a contract, with the groups it already has. */
  async open(contract: OpenContract): Promise<void> {
    await this.#serial.run(async () => {
      this.#groups.clear();
      const rows = await this.#store.groups(contract.contract.contractId);
      for (const row of rows) this.#groups.set(row.groupId, row);
      this.#open = contract;
    });
    this.changes.notify();
  }

  /** Hands out nothing more; verdicts can still be read. */
  close(): void {
    this.#open = undefined;
    this.changes.notify();
  }

  /** Groups of the open contract, in order of slot and attempt. */
  groups(): GroupRow[] {
    return [...this.#groups.values()].sort((a, b) => a.slot - b.slot);
  }

  /**
   * Work for a worker: first what it was given and has not committed (it may have restarted, or never
   * heard the answer), then new slots.
   */
  take(
    hotkey: string,
    capacity: number,
  ): Promise<{ contract: RolloutContract; assignments: GroupAssignment[] } | undefined> {
    return this.#serial.run(async () => {
      const open = this.#open;
      if (open === undefined) return undefined;
      const headBlock = await this.#ledger.headBlock();
      await this.#expire(headBlock);
      if (BigInt(headBlock) > open.contract.deadlineBlock) return undefined;
      const groups = this.groups();
      const waiting = groups.filter((g) => g.hotkey === hotkey && g.phase === "assigned");
      const fresh = assignSlots(
        groups,
        { hotkey, capacity: capacity - waiting.length, headBlock },
        { ...this.#rules, slots: open.slots },
      ).map(
        ({ slot, attempt, deadlineBlock }): GroupRow => ({
          groupId: `${open.contract.contractId}-g${slot}-a${attempt}`,
          contractId: open.contract.contractId,
          jobId: open.jobId,
          slot,
          hotkey,
          phase: "assigned",
          deadlineBlock,
          committedAtBlock: 0,
          challengeBlock: 0,
          reason: "",
        }),
      );
      await this.#write(fresh);
      const assignments = [...waiting, ...fresh]
        .slice(0, capacity)
        .map((group) => buildAssignment(open.contract, group.slot, group.groupId));
      return { contract: open.contract, assignments };
    });
  }

  /** Takes a commitment in; returns the challenge block. The same commitment again is answered alike. */
  commit(hotkey: string, request: CommitGroupRequest): Promise<number> {
    return this.#serial.run(async () => {
      const bytes = toBinary(CommitGroupRequestSchema, request);
      if (bytes.length > commitBytesMax || request.completions.length > groupSizeMax) {
        throw new CovenantError("COV_GROUP_TOO_LARGE", "The group is larger than a group can be.", {
          metadata: { groupId: request.groupId, bytesMax: String(commitBytesMax) },
        });
      }
      const group = this.#group(request.groupId);
      if (group.hotkey === hotkey && group.commit && bytesEqual(group.commit, bytes)) {
        return group.challengeBlock;
      }
      const headBlock = await this.#ledger.headBlock();
      const rules = { ...this.#rules, slots: this.#open?.slots ?? 0 };
      const next = commitGroup(group, { hotkey, headBlock }, rules);
      if (typeof next === "string") throw groupError(next, group.groupId);
      await this.#write([{ ...group, ...next, commit: bytes }]);
      return next.challengeBlock;
    });
  }

  /** Takes openings in; delivered again for the same group, they change nothing. */
  submit(hotkey: string, request: SubmitGroupsRequest): Promise<void> {
    return this.#serial.run(async () => {
      const group = this.#group(request.groupId);
      const delivered = ["submitted", "accepted", "rejected"].includes(group.phase);
      if (delivered && group.hotkey === hotkey) return;
      const headBlock = await this.#ledger.headBlock();
      const next = submitGroup(group, { hotkey, headBlock });
      if (typeof next === "string") throw groupError(next, group.groupId);
      const openings = toBinary(SubmitGroupsRequestSchema, request);
      await this.#write([{ ...group, ...next, openings }]);
    });
  }

  /** Records verdicts; a rejected group's slot is free again. */
  settle(verdicts: readonly { verdict: GroupVerdict; reason: string }[]): Promise<void> {
    return this.#serial.run(() =>
      this.#write(
        verdicts.map(({ verdict, reason }): GroupRow => {
          const group = this.#group(verdict.groupId);
          return {
            ...group,
            phase: verdict.accepted ? "accepted" : "rejected",
            reason,
            verdict: toBinary(GroupVerdictSchema, verdict),
          };
        }),
      ),
    );
  }

  /** Frees the slots of groups whose worker ran out of time. */
  expire(): Promise<void> {
    return this.#serial.run(async () => this.#expire(await this.#ledger.headBlock()));
  }

  /**
   * Waits for the verdict on a group until the signal aborts; then an empty one comes back. With a
   * hotkey given, only that worker's groups are found.
   */
  async verdict(
    hotkey: string | undefined,
    groupId: string,
    signal: AbortSignal,
  ): Promise<GroupVerdict> {
    while (true) {
      const since = this.changes.version;
      const group = this.#groups.get(groupId) ?? (await this.#store.group(groupId));
      if (group === undefined || (hotkey !== undefined && group.hotkey !== hotkey)) {
        throw groupError("not_assigned", groupId);
      }
      if (group.verdict !== undefined) return fromBinary(GroupVerdictSchema, group.verdict);
      if (group.phase === "expired") throw groupError("too_late", groupId);
      if (signal.aborted) {
        return create(GroupVerdictSchema, { groupId, hotkey: group.hotkey });
      }
      await this.changes.changed(since, signal);
    }
  }

  async #expire(headBlock: number): Promise<void> {
    const expired = expireGroups(this.groups(), headBlock);
    if (expired.length === 0) return;
    await this.#write(expired.map((group) => ({ ...this.#group(group.groupId), ...group })));
  }

  #group(groupId: string): GroupRow {
    const group = this.#groups.get(groupId);
    if (group === undefined) throw groupError("not_assigned", groupId);
    return group;
  }

  async #write(rows: readonly GroupRow[]): Promise<void> {
    if (rows.length === 0) return;
    await this.#store.saveGroups(rows);
    for (const row of rows) this.#groups.set(row.groupId, row);
    this.changes.notify();
  }
}

function groupError(fault: GroupFault, groupId: string): CovenantError {
  const metadata = { groupId, fault };
  switch (fault) {
    case "too_late":
      return new CovenantError("COV_GROUP_LATE", `Group ${groupId} ran out of time.`, { metadata });
    case "too_early":
      return new CovenantError("COV_GROUP_EARLY", `Group ${groupId} has no challenge yet.`, {
        metadata,
      });
    case "wrong_phase":
      return new CovenantError("COV_GROUP_PHASE", `Group ${groupId} has gone on already.`, {
        metadata,
      });
    case "not_assigned":
      return new CovenantError("COV_GROUP_UNKNOWN", `Group ${groupId} is not yours to deliver.`, {
        metadata,
      });
  }
}
