/**
 * Life of an assigned group, as a state machine: assigned → committed → submitted → accepted or
 * rejected, with a deadline in ledger blocks on every waiting state. A slot whose group was rejected
 * or ran out of time is opened again under a new group id, with the same prompt and the same draws.
 */
export type GroupPhase =
  | "assigned"
  | "committed"
  | "submitted"
  | "accepted"
  | "rejected"
  | "expired";

/** One group. */
export interface GroupState {
  groupId: string;
  /** Slot of the contract that it fills. */
  slot: number;
  hotkey: string;
  phase: GroupPhase;
  /** Last block at which the phase may be left by its worker; unused in final phases. */
  deadlineBlock: number;
  /** Set from `committed` on. */
  committedAtBlock: number;
  challengeBlock: number;
}

/** Times and bounds of assignment. */
export interface AssignmentRules {
  /** Slots of the contract. */
  slots: number;
  /** Blocks from assignment to commitment. */
  generateBlocks: number;
  /** Blocks from the challenge to the openings. */
  openBlocks: number;
  /** Blocks from commitment to challenge; at least 1. */
  challengeDelayBlocks: number;
  /** Groups that one worker may have in work. */
  outstandingMax: number;
}

/** Why a worker's step was refused. */
export type GroupFault = "not_assigned" | "too_late" | "wrong_phase" | "too_early";

const waiting: ReadonlySet<GroupPhase> = new Set(["assigned", "committed"]);

/** Whether the group holds its slot: nobody else gets it. */
export function holdsSlot(group: GroupState): boolean {
  return group.phase !== "rejected" && group.phase !== "expired";
}

/** Groups that ran out of time at `headBlock`, as `expired`. */
export function expireGroups(groups: readonly GroupState[], headBlock: number): GroupState[] {
  return groups
    .filter((group) => waiting.has(group.phase) && headBlock > group.deadlineBlock)
    .map((group) => ({ ...group, phase: "expired" as const }));
}

/**
 * Slots for a worker, lowest first: at most its capacity and `outstandingMax`. A worker whose group
 * of this contract was rejected is on probation: it gets nothing more from this contract, so that
 * false groups cost a slot once and not again and again.
 */
export function assignSlots(
  groups: readonly GroupState[],
  worker: { hotkey: string; capacity: number; headBlock: number },
  rules: AssignmentRules,
): { slot: number; attempt: number; deadlineBlock: number }[] {
  const own = groups.filter((group) => group.hotkey === worker.hotkey);
  if (own.some((group) => group.phase === "rejected")) return [];
  const outstanding = own.filter((group) => waiting.has(group.phase)).length;
  const limit = Math.min(worker.capacity, rules.outstandingMax - outstanding);
  const held = new Set(groups.filter(holdsSlot).map((group) => group.slot));
  const assigned: { slot: number; attempt: number; deadlineBlock: number }[] = [];
  for (let slot = 0; slot < rules.slots && assigned.length < limit; slot++) {
    if (held.has(slot)) continue;
    assigned.push({
      slot,
      attempt: groups.filter((group) => group.slot === slot).length,
      deadlineBlock: worker.headBlock + rules.generateBlocks,
    });
  }
  return assigned;
}

/** The group after its commitment came in, or why it is refused. */
export function commitGroup(
  group: GroupState,
  step: { hotkey: string; headBlock: number },
  rules: AssignmentRules,
): GroupState | GroupFault {
  if (group.hotkey !== step.hotkey) return "not_assigned";
  if (group.phase === "expired") return "too_late";
  if (group.phase !== "assigned") return "wrong_phase";
  if (step.headBlock > group.deadlineBlock) return "too_late";
  const challengeBlock = step.headBlock + rules.challengeDelayBlocks;
  return {
    ...group,
    phase: "committed",
    committedAtBlock: step.headBlock,
    challengeBlock,
    deadlineBlock: challengeBlock + rules.openBlocks,
  };
}

/** The group after its openings came in, or why they are refused. */
export function submitGroup(
  group: GroupState,
  step: { hotkey: string; headBlock: number },
): GroupState | GroupFault {
  if (group.hotkey !== step.hotkey) return "not_assigned";
  if (group.phase === "expired") return "too_late";
  if (group.phase !== "committed") return "wrong_phase";
  if (step.headBlock < group.challengeBlock) return "too_early";
  if (step.headBlock > group.deadlineBlock) return "too_late";
  return { ...group, phase: "submitted" };
}
