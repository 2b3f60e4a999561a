import { join } from "node:path";
import {
  importCheckpoint,
  readCheckpointDirectory,
  receiveCheckpoint,
} from "@covenant/checkpoints";
import { bytesEqual, toHex } from "@covenant/contracts";
import type { Round } from "@covenant/contracts/gauntlet";
import { type CheckpointManifest, CheckpointStage } from "@covenant/contracts/registry";
import { PeerPhase } from "@covenant/contracts/templar";
import { initialParameters, stateRoot } from "@covenant/kernels";
import type { RunSetup } from "@covenant/runs";
import { CovenantError, fromUnknown, retry } from "@covenant/runtime";
import { isQuorum, manifestHash, signedStake } from "@covenant/sparseloco";
import type { Peer } from "./peer.ts";
import { budget } from "./publish-update.ts";
import type { RegistryClient } from "./registry-client.ts";
import type { TrainerState } from "./trainer-state.ts";

/** Checkpoints tried before the peer falls back to the run's beginning. */
const CHECKPOINTS_MAX = 5;

/** The state before the first round, from the run's seed; throws when it is not what the run says. */
export async function genesisState(setup: RunSetup): Promise<TrainerState> {
  const theta = initialParameters(setup.shape, setup.run.seed);
  const root = await stateRoot(theta, setup.tensors);
  if (!bytesEqual(root, setup.run.genesisStateRoot)) {
    throw new CovenantError("COV_RUN_INVALID", "the seed does not lead to the genesis root", {
      metadata: { ours: toHex(root), theirs: toHex(setup.run.genesisStateRoot) },
    });
  }
  return freshState(setup, 0, theta, root, new Uint8Array());
}

function freshState(
  setup: RunSetup,
  round: number,
  theta: Float32Array,
  root: Uint8Array,
  previousManifestSha256: Uint8Array,
): TrainerState {
  const zeros = () => new Float32Array(setup.parameterCount);
  return {
    round,
    stateRoot: root,
    previousManifestSha256,
    theta,
    firstMoment: zeros(),
    secondMoment: zeros(),
    errorFeedback: zeros(),
    optimizerStepCount: 0,
  };
}

/**
 * The newest state the registry and the validators' signatures vouch for, if it is ahead of `round`; otherwise undefined. Parameters are
 * hashed again and compared with the root in the signed manifest of that round.
 */
export async function stateFromCheckpoint(
  peer: Peer,
  round: number,
): Promise<TrainerState | undefined> {
  const { registry, setup, logger, status } = peer;
  if (registry === undefined) return undefined;
  status.update({ phase: PeerPhase.CATCHING_UP, reason: "looking for a checkpoint" });
  const { checkpoints } = await retry(
    () =>
      registry.listCheckpoints({
        runId: setup.run.runId,
        stage: CheckpointStage.PRETRAIN,
        pageSize: CHECKPOINTS_MAX,
      }),
    budget(peer, "the checkpoint registry"),
  );
  for (const { manifest } of checkpoints) {
    if (manifest === undefined || manifest.version + 1 <= round) continue;
    try {
      return await openCheckpoint(peer, registry, manifest);
    } catch (caught) {
      peer.signal.throwIfAborted();
      const { code, message } = fromUnknown(caught);
      logger.warn({ code, root: toHex(manifest.root) }, `checkpoint not usable: ${message}`);
    }
  }
  return undefined;
}

async function openCheckpoint(
  peer: Peer,
  registry: RegistryClient,
  manifest: CheckpointManifest,
): Promise<TrainerState> {
  const { setup, logger } = peer;
  const version = manifest.version;
  const signed = await signedRound(peer, version);
  const vouched = signed.signedManifest!.manifest!;
  const directory = join(peer.checkpointDirectory, toHex(manifest.root));
  const { signal, clock } = peer;
  const maxBytes = checkpointBytesMax(setup);
  const received = await receiveCheckpoint(
    registry,
    manifest.root,
    { directory, signal, maxBytes },
    { clock },
  );
  const { parameters } = importCheckpoint(await readCheckpointDirectory(directory, { maxBytes }));
  const root = await stateRoot(parameters, setup.tensors);
  if (!bytesEqual(root, vouched.postStateRoot)) {
    throw new CovenantError("COV_STATE_DIVERGED", `checkpoint ${version} holds another state`, {
      metadata: { ours: toHex(root), theirs: toHex(vouched.postStateRoot) },
    });
  }
  const { bytes, seconds } = received;
  logger.info({ version, bytes, seconds, root: toHex(root) }, "joined from a checkpoint");
  return freshState(setup, version + 1, parameters, root, manifestHash(vouched));
}

/** Weights in fp32, tokenizer and small files. */
function checkpointBytesMax(setup: RunSetup): number {
  return setup.parameterCount * 4 + 64 * 1024 * 1024;
}

/** A round whose manifest a quorum signed. */
async function signedRound(peer: Peer, number: number): Promise<Round> {
  await retry(() => peer.validators.refresh(), budget(peer, "the ledger"));
  const { round } = await retry(
    () => peer.validators.leader.getRound({ round: number }),
    budget(peer, "the validator"),
  );
  const signed = round?.signedManifest;
  const stake = peer.validators.stake;
  if (round === undefined || !signed?.manifest || !isQuorum(signedStake(signed, stake), stake)) {
    throw new CovenantError("COV_MANIFEST_REFUSED", `round ${number} has no signed manifest`);
  }
  return round;
}
