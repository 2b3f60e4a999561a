import { PeerPhase } from "@covenant/contracts/templar";
import type { TrainableModel } from "@covenant/kernels";
import { sentForm } from "@covenant/runs";
import {
  assignedSamples,
  buildHeader,
  framePayload,
  takesAnnouncements,
} from "@covenant/sparseloco";
import type { Peer } from "./peer.ts";
import type { PendingUpdate, TrainerState } from "./trainer-state.ts";

/**
 * Makes the peer's update of a round and saves it before anybody can see it. Returns undefined when the round closed meanwhile: the
 * work is dropped and the model returns to the round's start with the next state that is loaded.
 */
export async function produceUpdate(
  peer: Peer,
  state: TrainerState,
  uid: number,
): Promise<PendingUpdate | undefined> {
  const { model, setup, hotkey, status, logger } = peer;
  const { round } = state;
  const samples = assignedSamples(setup.assignment, round, { uid, hotkey: hotkey.address });
  await loadIntoModel(model, state);
  const closed = new AbortController();
  const signal = AbortSignal.any([peer.signal, closed.signal]);
  const watching = peer.feed
    .waitFor(round, (seen) => !takesAnnouncements(seen.state), signal)
    .then(() => closed.abort())
    .catch(() => {});
  const errorFeedback = state.errorFeedback.slice();
  status.update({ phase: PeerPhase.TRAINING, round, innerStep: 0, reason: "" });
  try {
    const body = await peer.behaviour.produceBody({
      round,
      setup,
      theta: state.theta,
      model,
      errorFeedback,
      samples,
      source: peer.source,
      signal,
      beforeStep: () => passGate(peer, signal),
      onStep: (report) => status.update(report),
      ledger: peer.ledger,
      netuid: peer.netuid,
      objects: peer.objects,
      hotkey: hotkey.address,
      clock: peer.clock,
      logger,
    });
    const expected = {
      run: setup.run,
      round,
      baseRoot: state.stateRoot,
      tensorTableRoot: setup.tensorTableRoot,
      samples,
    };
    const sent = await sentForm(setup, body);
    const payload = framePayload(buildHeader(expected, sent, hotkey), sent);
    const pending = {
      round,
      baseRoot: state.stateRoot,
      payload,
      firstMoment: await model.read("firstMoment"),
      secondMoment: await model.read("secondMoment"),
      errorFeedback,
      optimizerStepCount: model.optimizerStepCount,
    };
    await peer.files.savePending(pending);
    return pending;
  } catch (error) {
    if (!closed.signal.aborted || peer.signal.aborted) throw error;
    logger.warn({ round }, "the round closed before this peer's update was ready");
    return undefined;
  } finally {
    closed.abort();
    await watching;
  }
}

/** Sets the model to a state: parameters, moments, step count. */
async function loadIntoModel(model: TrainableModel, state: TrainerState): Promise<void> {
  await Promise.all([
    model.write("parameters", state.theta),
    model.write("firstMoment", state.firstMoment),
    model.write("secondMoment", state.secondMoment),
    model.clear("gradients"),
  ]);
  model.optimizerStepCount = state.optimizerStepCount;
}

async function passGate(peer: Peer, signal: AbortSignal): Promise<void> {
  if (!peer.gate.isPaused) return;
  const { phase } = peer.status.current;
  peer.status.update({ phase: PeerPhase.PAUSED, reason: "paused by its operator" });
  await peer.gate.pass(signal);
  peer.status.update({ phase, reason: "" });
}
