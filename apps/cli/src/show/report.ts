// The report of a run: measured figures only, collected from the services over RPC.
import { VerdictReason } from "@covenant/contracts/gauntlet";
import { formatBytes, formatDuration, table } from "./format.ts";
import { bytesPerUpdate, closedRounds, heldOut, type PeerRole, type ShowState } from "./state.ts";

/** What `--report FILE` writes. Absent measurements are null, and then `ok` is false. */
export interface Report {
  /** True when every promise of the run was kept; `problems` says which were not. */
  ok: boolean;
  problems: string[];
  durationSeconds: number;
  peakRssBytes: number;
  pretrain: {
    rounds: number;
    heldOutBitsPerByteFirst: number | null;
    heldOutBitsPerByteLast: number | null;
    stateRootsEqual: boolean;
    bytesPerUpdate: number;
    compressionRatio: number;
    tokensPerSecond: number;
    weights: { hotkey: string; name: string; role: PeerRole; share: number; reasons: string[] }[];
  };
  handoff: { root: string; bytes: number; seconds: number } | null;
  postTraining: {
    sftLossBefore: number;
    sftLossAfter: number;
    rewardBefore: number;
    rewardAfter: number;
    groupsAccepted: number;
    groupsRejected: Record<string, number>;
    honestGroupsRejected: number;
    substitutedGroupsAccepted: number;
  } | null;
  serve: { question: string; answer: string; receiptVerified: boolean } | null;
}

/** What only the one who started the mesh knows. */
export interface ReportInputs {
  nowMs: number;
  pretrainSeconds: number;
  tokensPerUpdate: number;
  /** Hotkeys of rollout workers by role. */
  honestWorkers: readonly string[];
  substitutedWorkers: readonly string[];
  serve: Report["serve"];
}

/** Builds the report; never invents a figure. */
export function buildReport(state: ShowState, inputs: ReportInputs): Report {
  const report: Report = {
    ok: false,
    problems: [],
    durationSeconds: (inputs.nowMs - state.startedAtMs) / 1000,
    peakRssBytes: state.peakRssBytes,
    pretrain: pretrainPart(state, inputs),
    handoff: handoffPart(state),
    postTraining: postTrainingPart(state, inputs),
    serve: inputs.serve,
  };
  report.problems = problemsOf(report, state);
  report.ok = report.problems.length === 0;
  return report;
}

function pretrainPart(state: ShowState, inputs: ReportInputs): Report["pretrain"] {
  const closed = closedRounds(state);
  const { first, last } = heldOut(state);
  const bytes = bytesPerUpdate(state);
  const accepted = closed.flatMap((round) =>
    round.verdicts.filter((verdict) => verdict.reason === VerdictReason.ACCEPTED),
  ).length;
  return {
    rounds: closed.length,
    heldOutBitsPerByteFirst: first ?? null,
    heldOutBitsPerByteLast: last ?? null,
    stateRootsEqual: rootsEqual(state),
    bytesPerUpdate: bytes,
    compressionRatio: bytes > 0 ? (state.parameterCount * 4) / bytes : 0,
    tokensPerSecond:
      inputs.pretrainSeconds > 0 ? (accepted * inputs.tokensPerUpdate) / inputs.pretrainSeconds : 0,
    weights: state.peers.map(({ hotkey, name, role, weightShare, reasons }) => ({
      hotkey,
      name,
      role,
      share: weightShare,
      reasons,
    })),
  };
}

/**
 * Every root that any peer reported for a round is the manifest's, and every contributor reported one for that round or a later one:
 * a peer that was down rejoins from a checkpoint, whose root vouches for all rounds before it.
 */
function rootsEqual(state: ShowState): boolean {
  const closed = closedRounds(state);
  if (closed.length === 0) return false;
  const lastReported = new Map(
    closed.flatMap(({ round, appliedRoots }) =>
      Object.keys(appliedRoots).map((hotkey) => [hotkey, round] as const),
    ),
  );
  return closed.every((round) => {
    const manifest = round.signedManifest?.manifest;
    if (!manifest) return false;
    const expected = Buffer.from(manifest.postStateRoot).toString("hex");
    const reported = new Map(
      Object.entries(round.appliedRoots).map(([hotkey, root]) => [
        hotkey,
        Buffer.from(root).toString("hex"),
      ]),
    );
    const everyoneReported = manifest.contributors.every(
      ({ hotkey }) => (lastReported.get(hotkey) ?? -1) >= round.round,
    );
    return everyoneReported && [...reported.values()].every((root) => root === expected);
  });
}

function handoffPart(state: ShowState): Report["handoff"] {
  const handoff = state.postTraining?.handoff;
  if (!handoff || handoff.bytes === 0n) return null;
  return {
    root: Buffer.from(handoff.root).toString("hex"),
    bytes: Number(handoff.bytes),
    seconds: handoff.seconds,
  };
}

function postTrainingPart(state: ShowState, inputs: ReportInputs): Report["postTraining"] {
  const status = state.postTraining;
  if (!status) return null;
  const sum = (record: Record<string, number>) =>
    Object.values(record).reduce((total, count) => total + count, 0);
  const tallies = (hotkeys: readonly string[]) =>
    hotkeys.flatMap((hotkey) => (status.workers[hotkey] ? [status.workers[hotkey]] : []));
  return {
    sftLossBefore: status.sftLossBefore,
    sftLossAfter: status.sftLossAfter,
    rewardBefore: status.rewardBefore,
    rewardAfter: status.rewardAfter,
    groupsAccepted: status.groupsAccepted,
    groupsRejected: { ...status.groupsRejected },
    honestGroupsRejected: tallies(inputs.honestWorkers).reduce(
      (total, tally) => total + sum(tally.rejected),
      0,
    ),
    substitutedGroupsAccepted: tallies(inputs.substitutedWorkers).reduce(
      (total, tally) => total + tally.accepted,
      0,
    ),
  };
}

const dishonest: readonly PeerRole[] = ["copier", "noise"];

/** Fewer policy versions move the mean reward by less than its sampling noise: then it must only not collapse. */
const versionsThatShow = 8;
const rewardNoise = 0.1;

function problemsOf(report: Report, { roundsPlanned, ...state }: ShowState): string[] {
  const problems: string[] = [];
  const { pretrain, handoff, postTraining, serve } = report;
  if (pretrain.rounds < roundsPlanned) {
    problems.push(`${pretrain.rounds} of ${roundsPlanned} rounds were closed.`);
  }
  const { heldOutBitsPerByteFirst: first, heldOutBitsPerByteLast: last } = pretrain;
  if (first === null || last === null || last >= first)
    problems.push("The held-out loss did not fall.");
  if (!pretrain.stateRootsEqual) problems.push("Some peer ended a round with another state root.");
  const honest = pretrain.weights.filter(({ role }) => role === "honest").map(({ share }) => share);
  const lowestHonest = Math.min(...honest);
  for (const { name, role, share } of pretrain.weights) {
    if (dishonest.includes(role) && share * 10 >= lowestHonest) {
      problems.push(`${name} (${role}) earns ${share}, too much beside ${lowestHonest}.`);
    }
  }
  if (!handoff) problems.push("No checkpoint reached Grail.");
  if (!postTraining) problems.push("Post-training did not run.");
  else {
    const isLong = (state.postTraining?.policyVersion ?? 0) >= versionsThatShow;
    const rise = postTraining.rewardAfter - postTraining.rewardBefore;
    if (isLong && rise <= 0) problems.push("The reward did not rise.");
    if (rise < -rewardNoise) problems.push("The reward collapsed.");
    if (postTraining.honestGroupsRejected > 0)
      problems.push("An honest rollout group was rejected.");
    if (postTraining.substitutedGroupsAccepted > 0) {
      problems.push("A group from the substituted model was accepted.");
    }
  }
  if (!serve) problems.push("No question was answered.");
  else if (!serve.receiptVerified) problems.push("The receipt of the answer did not verify.");
  return problems;
}

/** The summary that ends the show. */
export function summaryLines(report: Report): string[] {
  const { pretrain, handoff, postTraining, serve } = report;
  const number = (value: number | null, digits: number) =>
    value === null ? "—" : value.toFixed(digits);
  const rows: string[][] = [
    [
      "Pre-training",
      `${pretrain.rounds} rounds, held-out ${number(pretrain.heldOutBitsPerByteFirst, 2)} → ${number(pretrain.heldOutBitsPerByteLast, 3)} bits per byte, ${pretrain.tokensPerSecond.toFixed(0)} tokens/s`,
    ],
    [
      "Communication",
      `${formatBytes(pretrain.bytesPerUpdate)} per update, ${pretrain.compressionRatio.toFixed(1)} times smaller than fp32, every byte counted`,
    ],
    ["State roots", pretrain.stateRootsEqual ? "equal for every peer in every round" : "DIFFERENT"],
    [
      "Hand-off",
      handoff
        ? `${formatBytes(handoff.bytes)} in ${handoff.seconds.toFixed(2)} s, root ${handoff.root.slice(0, 16)}…`
        : "did not happen",
    ],
  ];
  if (postTraining) {
    const rejected = Object.values(postTraining.groupsRejected).reduce(
      (sum, count) => sum + count,
      0,
    );
    rows.push(
      [
        "Fine-tuning",
        `loss ${number(postTraining.sftLossBefore, 3)} → ${number(postTraining.sftLossAfter, 3)}`,
      ],
      [
        "GRPO",
        `mean reward ${number(postTraining.rewardBefore, 3)} → ${number(postTraining.rewardAfter, 3)}`,
      ],
      ["Rollouts", `${postTraining.groupsAccepted} groups proven, ${rejected} rejected`],
    );
  }
  if (serve) {
    rows.push([
      "Chat",
      `“${serve.question}” → “${serve.answer}”, receipt ${serve.receiptVerified ? "verified" : "NOT verified"}`,
    ]);
  }
  rows.push([
    "Cost",
    `${formatDuration(report.durationSeconds * 1000)} minutes, peak memory ${formatBytes(report.peakRssBytes)}`,
  ]);
  const rewards = table(
    [
      ["peer", "role", "reward", "why"],
      ...pretrain.weights.map(({ name, role, share, reasons }) => [
        name,
        role,
        `${(share * 100).toFixed(1)} %`,
        reasons[0] ?? "",
      ]),
    ],
    [false, false, true],
  );
  return [
    ...table(rows),
    "",
    ...rewards,
    ...(report.ok
      ? []
      : ["", "Not everything held:", ...report.problems.map((line) => `  ${line}`)]),
  ];
}
