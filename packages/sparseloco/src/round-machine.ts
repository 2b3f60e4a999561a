import { RoundState } from "@covenant/contracts/gauntlet";

/** How often a window that too few peers have used is extended before it closes anyway. */
const EXTENSIONS_MAX = 20;

/** Block counts that bound the states of a round. */
export type RoundRules = {
  /** TRAINING: from the round's opening. */
  blocksPerWindow: number;
  /** PUBLISHING: grace after the window in which late payloads still count. */
  publishBlocks: number;
  /** SCORING: after this the round is abandoned as null; generous, since it punishes the honest. */
  scoringBlocks: number;
  /** PROPOSED, SIGNED and APPLIED: after this the step is tried again or given up with a reason. */
  settleBlocks: number;
  /** A round neither closes early nor on time with fewer announcements, while extensions last. */
  minimumPeers: number;
};

/** An announced update and the ledger position of its commitment. */
export type Announced = { hotkey: string; committedBlock: number; committedIndex: number };

/** A round as pure data; serialises to JSON. */
export type RoundRecord = {
  round: number;
  state: RoundState;
  /** Why the round is in this state, in words. */
  reason: string;
  openBlock: number;
  deadlineBlock: number;
  /** Block at which announcements ended; 0 while they are taken. */
  closeBlock: number;
  /** Peers the round waits for. */
  expected: readonly string[];
  /** In the order of the ledger's commitments. */
  announced: readonly Announced[];
  extensions: number;
};

/** What happens to a round. Blocks are the ledger's. */
export type RoundEvent =
  | { type: "block"; block: number }
  | { type: "expected"; hotkeys: readonly string[]; block: number }
  | { type: "announced"; update: Announced; block: number }
  | { type: "scored"; contributors: number; nullReason: string; block: number }
  | { type: "signed"; signers: number; block: number }
  | {
      type: "adopted";
      contributors: number;
      signers: number;
      closeBlock: number;
      block: number;
    }
  | { type: "applied"; block: number; checkpoint: boolean }
  | { type: "checkpointed"; root: string };

/** What the shell has to do because of a transition. */
export type RoundEffect =
  | { type: "score" }
  | { type: "abandonScoring" }
  | { type: "collectSignatures" }
  | { type: "apply" }
  | { type: "checkpoint" };

/** A step of the machine. `refused` says why an event was not taken. */
export type RoundStep = { record: RoundRecord; effects: readonly RoundEffect[]; refused?: string };

/** A round at the moment it opens. */
export function openRound(rules: RoundRules, round: number, openBlock: number): RoundRecord {
  return {
    round,
    state: RoundState.TRAINING,
    reason: "peers are training",
    openBlock,
    deadlineBlock: openBlock + rules.blocksPerWindow,
    closeBlock: 0,
    expected: [],
    announced: [],
    extensions: 0,
  };
}

/** True while a round in this state takes announcements. */
export function takesAnnouncements(state: RoundState): boolean {
  return state === RoundState.TRAINING || state === RoundState.PUBLISHING;
}

/** Expected peers that have not announced. */
export function missingPeers(record: RoundRecord): string[] {
  const announced = new Set(record.announced.map((update) => update.hotkey));
  return record.expected.filter((hotkey) => !announced.has(hotkey));
}

/** Advances a round by one event. Pure: the same record and event give the same step. */
export function stepRound(rules: RoundRules, record: RoundRecord, event: RoundEvent): RoundStep {
  switch (event.type) {
    case "block":
      return onBlock(rules, record, event.block);
    case "expected":
      return onExpected(rules, record, event.hotkeys, event.block);
    case "announced":
      return onAnnounced(rules, record, event.update, event.block);
    case "scored":
      return onScored(rules, record, event);
    case "signed":
      return onSigned(rules, record, event.signers, event.block);
    case "adopted":
      return onAdopted(rules, record, event);
    case "applied":
      return onApplied(rules, record, event.block, event.checkpoint);
    case "checkpointed":
      if (record.state !== RoundState.APPLIED) return refuse(record, "round is not applied");
      return move(
        record,
        RoundState.CHECKPOINTED,
        `checkpoint ${event.root} is in the registry`,
        0,
      );
  }
}

function refuse(record: RoundRecord, refused: string): RoundStep {
  return { record, effects: [], refused };
}

function move(
  record: RoundRecord,
  state: RoundState,
  reason: string,
  deadlineBlock: number,
  effects: readonly RoundEffect[] = [],
): RoundStep {
  return { record: { ...record, state, reason, deadlineBlock }, effects };
}

function onExpected(
  rules: RoundRules,
  record: RoundRecord,
  hotkeys: readonly string[],
  block: number,
): RoundStep {
  if (!takesAnnouncements(record.state)) return refuse(record, "the round has closed");
  return closeIfComplete(rules, { ...record, expected: [...hotkeys].sort() }, block);
}

function onAnnounced(
  rules: RoundRules,
  record: RoundRecord,
  update: Announced,
  block: number,
): RoundStep {
  if (!takesAnnouncements(record.state)) return refuse(record, "the round has closed");
  if (record.announced.some((known) => known.hotkey === update.hotkey)) {
    return { record, effects: [] };
  }
  const announced = [...record.announced, update].sort(byCommitment);
  const deadline = record.openBlock + windowBlocks(rules, record) + rules.publishBlocks;
  const next: RoundRecord = {
    ...record,
    announced,
    state: RoundState.PUBLISHING,
    deadlineBlock: Math.max(deadline, record.deadlineBlock),
  };
  return closeIfComplete(rules, next, block);
}

function byCommitment(a: Announced, b: Announced): number {
  return a.committedBlock - b.committedBlock || a.committedIndex - b.committedIndex;
}

function windowBlocks(rules: RoundRules, record: RoundRecord): number {
  return rules.blocksPerWindow * (1 + record.extensions);
}

function closeIfComplete(rules: RoundRules, record: RoundRecord, block: number): RoundStep {
  const missing = missingPeers(record);
  const count = record.announced.length;
  if (missing.length === 0 && count >= rules.minimumPeers) {
    return close(rules, record, block, `all ${count} expected peers announced`);
  }
  if (count === 0) return { record, effects: [] };
  const waiting =
    missing.length > 0
      ? `waiting for ${missing.length} of ${record.expected.length} expected peers`
      : `${count} announced, at least ${rules.minimumPeers} are needed`;
  return { record: { ...record, reason: waiting }, effects: [] };
}

function close(rules: RoundRules, record: RoundRecord, block: number, reason: string): RoundStep {
  const closed = { ...record, closeBlock: block };
  return move(closed, RoundState.SCORING, reason, block + rules.scoringBlocks, [{ type: "score" }]);
}

function onBlock(rules: RoundRules, record: RoundRecord, block: number): RoundStep {
  if (record.deadlineBlock === 0 || block < record.deadlineBlock) return { record, effects: [] };
  const again = block + rules.settleBlocks;
  switch (record.state) {
    case RoundState.TRAINING:
      return move(
        record,
        RoundState.PUBLISHING,
        `the window of ${windowBlocks(rules, record)} blocks is over; late payloads still count`,
        record.deadlineBlock + rules.publishBlocks,
      );
    case RoundState.PUBLISHING:
      return closeOnTime(rules, record, block);
    case RoundState.SCORING:
      return move(record, RoundState.SCORING, "scoring took too long and is abandoned", again, [
        { type: "abandonScoring" },
      ]);
    case RoundState.PROPOSED:
      return move(record, RoundState.PROPOSED, "no quorum yet; asking again", again, [
        { type: "collectSignatures" },
      ]);
    case RoundState.SIGNED:
      return move(record, RoundState.SIGNED, "applying is overdue", again, [{ type: "apply" }]);
    case RoundState.APPLIED:
      return move(record, RoundState.APPLIED, "checkpoint is overdue; trying again", again, [
        { type: "checkpoint" },
      ]);
    default:
      return { record, effects: [] };
  }
}

function closeOnTime(rules: RoundRules, record: RoundRecord, block: number): RoundStep {
  const count = record.announced.length;
  if (count < rules.minimumPeers && record.extensions < EXTENSIONS_MAX) {
    const extensions = record.extensions + 1;
    const reason = `${count} of at least ${rules.minimumPeers} peers announced; window extended`;
    const state = count === 0 ? RoundState.TRAINING : RoundState.PUBLISHING;
    return move({ ...record, extensions }, state, reason, block + rules.blocksPerWindow);
  }
  const missing = missingPeers(record).length;
  return close(
    rules,
    record,
    block,
    `time is up: ${count} announced, ${missing} expected are missing`,
  );
}

function onScored(
  rules: RoundRules,
  record: RoundRecord,
  event: { contributors: number; nullReason: string; block: number },
): RoundStep {
  if (record.state !== RoundState.SCORING) return refuse(record, "the round is not being scored");
  const reason =
    event.contributors > 0
      ? `${event.contributors} of ${record.announced.length} updates contribute`
      : `null round: ${event.nullReason}`;
  const deadline = event.block + rules.settleBlocks;
  return move(record, RoundState.PROPOSED, reason, deadline, [{ type: "collectSignatures" }]);
}

function onSigned(
  rules: RoundRules,
  record: RoundRecord,
  signers: number,
  block: number,
): RoundStep {
  if (record.state !== RoundState.PROPOSED) return refuse(record, "the round is not proposed");
  const reason = `${record.reason}; signed by ${signers} validator${signers === 1 ? "" : "s"}`;
  return move(record, RoundState.SIGNED, reason, block + rules.settleBlocks, [{ type: "apply" }]);
}

/** Another validator gathered the quorum first: its round is the round, whatever this one was doing. */
function onAdopted(
  rules: RoundRules,
  record: RoundRecord,
  event: { contributors: number; signers: number; closeBlock: number; block: number },
): RoundStep {
  if (record.state >= RoundState.SIGNED) return refuse(record, "the round is signed already");
  const { contributors, signers, closeBlock, block } = event;
  const reason = `${contributors} updates contribute, as ${signers} validators have signed`;
  const deadline = block + rules.settleBlocks;
  const closed = { ...record, closeBlock };
  return move(closed, RoundState.SIGNED, reason, deadline, [{ type: "apply" }]);
}

function onApplied(
  rules: RoundRules,
  record: RoundRecord,
  block: number,
  checkpoint: boolean,
): RoundStep {
  if (record.state !== RoundState.SIGNED) return refuse(record, "the round is not signed");
  const deadline = checkpoint ? block + rules.settleBlocks : 0;
  const effects: RoundEffect[] = checkpoint ? [{ type: "checkpoint" }] : [];
  return move(record, RoundState.APPLIED, record.reason, deadline, effects);
}

/** What the expectation for a round is computed from. */
export type Attendance = {
  /** Hotkeys with a trainer endpoint on the ledger. */
  endpoints: readonly string[];
  /** Hotkeys that were expected or announced in any earlier round. */
  known: ReadonlySet<string>;
  /** Hotkeys that announced in one of the last two rounds. */
  recent: ReadonlySet<string>;
};

/**
 * Peers a round waits for: those with an endpoint that announced in either of the last two rounds or that nobody has waited
 * for yet. Who misses two rounds is no longer waited for until it announces again.
 */
export function expectedPeers(attendance: Attendance): string[] {
  const { endpoints, known, recent } = attendance;
  return endpoints.filter((hotkey) => recent.has(hotkey) || !known.has(hotkey));
}
