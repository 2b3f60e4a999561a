import { bytesEqual, toHex } from "@covenant/contracts";
import { PeerPhase } from "@covenant/contracts/templar";
import { CovenantError, fromUnknown, retry, withSpanOf } from "@covenant/runtime";
import { takesAnnouncements } from "@covenant/sparseloco";
import { stateAfter } from "./apply-round.ts";
import { genesisState, stateFromCheckpoint } from "./catch-up.ts";
import type { Peer } from "./peer.ts";
import { produceUpdate } from "./produce-update.ts";
import { budget, publishUpdate } from "./publish-update.ts";
import type { PendingUpdate, TrainerState } from "./trainer-state.ts";

/** Errors after which the local state is given up and built anew from signed rounds. */
const RESYNC_CODES = new Set(["COV_STATE_DIVERGED", "COV_ROUND_PRUNED"]);
/** Times a round may fail for reasons that a new attempt can cure, before the peer gives up and exits. */
const ROUND_ATTEMPTS_MAX = 20;
const ATTEMPT_DELAY_MS = 1_000;

/** Takes part in the run until its last round is applied or the peer is drained. */
export async function runPeer(peer: Peer, uid: number): Promise<void> {
  let state = await startState(peer);
  let pending = await startPending(peer, state);
  let attempts = 0;
  while (state.round < peer.setup.run.rounds && !peer.gate.isDraining) {
    peer.signal.throwIfAborted();
    peer.feed.advance(state.round);
    try {
      state = await playRound(peer, state, pending, uid);
      pending = undefined;
      attempts = 0;
    } catch (caught) {
      peer.signal.throwIfAborted();
      attempts += 1;
      const error = fromUnknown(caught);
      if (attempts >= ROUND_ATTEMPTS_MAX) throw error;
      const { round } = state;
      peer.logger.error({ code: error.code, round, attempts }, `round failed: ${error.message}`);
      peer.status.update({ reason: error.message });
      if (RESYNC_CODES.has(error.code)) state = await resync(peer);
      await peer.clock.sleep(ATTEMPT_DELAY_MS, peer.signal);
      pending = await startPending(peer, state);
    }
  }
  const finished = state.round >= peer.setup.run.rounds;
  const phase = finished ? PeerPhase.FINISHED : PeerPhase.DRAINING;
  peer.status.update({ phase, reason: finished ? "the run is complete" : "drained" });
}

/** One round: make and publish an update if the round still takes one, wait for the signed manifest, apply it. */
async function playRound(
  peer: Peer,
  state: TrainerState,
  kept: PendingUpdate | undefined,
  uid: number,
): Promise<TrainerState> {
  const { feed, status, signal, logger } = peer;
  const { round } = state;
  status.update({ round, phase: PeerPhase.WAITING_FOR_MANIFEST, reason: "" });
  const seen = await feed.waitFor(round, () => true, signal);
  let pending = kept;
  await withSpanOf(seen.traceId, "peer.contribute", { round }, async () => {
    if (!takesAnnouncements(seen.state)) return;
    pending ??= await produceUpdate(peer, state, uid);
    if (pending !== undefined) await publishUpdate(peer, pending);
  });
  const reason = "waiting for the round's signed manifest";
  status.update({ phase: PeerPhase.WAITING_FOR_MANIFEST, reason });
  const closed = await feed.waitFor(round, (r) => r.signedManifest !== undefined, signal);
  return withSpanOf(closed.traceId, "peer.apply", { round }, async () => {
    const next = await stateAfter(peer, state, closed.signedManifest!, pending);
    await peer.files.saveState(next);
    status.update({ stateRoot: next.stateRoot });
    logger.info({ round, stateRoot: toHex(next.stateRoot) }, "round applied");
    await report(peer, round, next.stateRoot);
    return next;
  });
}

async function report(peer: Peer, round: number, stateRoot: Uint8Array): Promise<void> {
  const runId = peer.setup.run.runId;
  const request = { runId, round, stateRoot };
  try {
    await retry(() => peer.validators.leader.reportApplied(request), budget(peer, "the validator"));
  } catch (caught) {
    peer.signal.throwIfAborted();
    const { code, message } = fromUnknown(caught);
    peer.logger.warn({ code, round }, `applied state not reported: ${message}`);
  }
}

/** The saved state; without a usable one, a checkpoint or the run's beginning. */
async function startState(peer: Peer): Promise<TrainerState> {
  try {
    const saved = await peer.files.loadState();
    if (saved !== undefined) {
      const stateRoot = toHex(saved.stateRoot);
      peer.logger.info({ round: saved.round, stateRoot }, "resuming from the saved state");
      const state = await newest(peer, saved);
      // The last life may have ended between saving the state and reporting it.
      if (state === saved && saved.round > 0) await report(peer, saved.round - 1, saved.stateRoot);
      return state;
    }
  } catch (caught) {
    const error = fromUnknown(caught);
    if (error.code !== "COV_STATE_CORRUPT") throw error;
    peer.logger.error({ code: error.code }, `${error.message}; rebuilding it`);
    await peer.files.setAside();
  }
  return newest(peer, await genesisState(peer.setup));
}

/** A state far behind the run is replaced by a checkpoint, if there is a newer one. */
async function newest(peer: Peer, state: TrainerState): Promise<TrainerState> {
  const { feed, checkpointBehindRounds, signal } = peer;
  feed.advance(state.round);
  const current = await currentRound(peer);
  if (current - state.round < checkpointBehindRounds) return state;
  signal.throwIfAborted();
  const joined = await stateFromCheckpoint(peer, state.round);
  if (joined === undefined) return state;
  await peer.files.saveState(joined);
  await report(peer, joined.round - 1, joined.stateRoot);
  return joined;
}

async function currentRound(peer: Peer): Promise<number> {
  const card = await retry(
    async () => {
      await peer.validators.refresh();
      return peer.validators.leader.getScorecard({});
    },
    { ...budget(peer, "the validator"), budgetMs: Number.POSITIVE_INFINITY, isFinal: () => false },
  );
  return card.round;
}

async function resync(peer: Peer): Promise<TrainerState> {
  peer.logger.warn("the local state is given up; rebuilding it from signed rounds");
  peer.status.update({ phase: PeerPhase.CATCHING_UP, reason: "rebuilding the state" });
  await peer.files.setAside();
  const genesis = await genesisState(peer.setup);
  const joined = await stateFromCheckpoint(peer, 0);
  const state = joined ?? genesis;
  await peer.files.saveState(state);
  if (joined !== undefined) await report(peer, joined.round - 1, joined.stateRoot);
  return state;
}

/** The saved pending update, if it belongs to exactly this state. */
async function startPending(peer: Peer, state: TrainerState): Promise<PendingUpdate | undefined> {
  try {
    const pending = await peer.files.loadPending();
    if (pending === undefined || pending.round !== state.round) return undefined;
    return bytesEqual(pending.baseRoot, state.stateRoot) ? pending : undefined;
  } catch (caught) {
    const error = fromUnknown(caught);
    if (!(error instanceof CovenantError) || error.code !== "COV_STATE_CORRUPT") throw error;
    peer.logger.error({ code: error.code }, `${error.message}; the update is made again`);
    return undefined;
  }
}
