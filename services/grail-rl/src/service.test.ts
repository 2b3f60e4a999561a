import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  PostTraining,
  PostTrainingPhase,
  type PostTrainingStatus,
} from "@covenant/contracts/grail";
import { CheckpointRegistry, CheckpointStage } from "@covenant/contracts/registry";
import { closeClient, createClient, hasCode } from "@covenant/runtime";
import { TestGrailMesh, workerAddress } from "./testing/mesh.ts";

const mesh = await TestGrailMesh.open();
after(() => mesh.close());

const settings = {
  supervised: {
    batchExamples: 32,
    learningRate: 3e-3,
    replaySequences: 4,
    replayTokens: 16,
    maximumSteps: 160,
    probeEverySteps: 40,
    probePrompts: 16,
    targetReward: 1,
  },
  policy: { versions: 3, groupsPerVersion: 6, groupSize: 8, evaluationPrompts: 32 },
  rollouts: { generateBlocks: 60, openBlocks: 60, retryAfterMs: 50, outstandingMax: 2 },
};

function clientOf(endpoint: string) {
  const tls = mesh.tls.operator!;
  return createClient(PostTraining, { url: `https://${endpoint}`, caFile: tls.caFile, tls });
}

/** Watches until the predicate holds. */
async function watchUntil(
  endpoint: string,
  jobId: string,
  holds: (status: PostTrainingStatus) => boolean,
): Promise<PostTrainingStatus> {
  const client = clientOf(endpoint);
  const stop = new AbortController();
  const limits = { timeoutMs: 240_000, signal: stop.signal };
  let found: PostTrainingStatus | undefined;
  try {
    for await (const { status } of client.watchPostTraining({ jobId }, limits)) {
      assert.notEqual(status!.phase, PostTrainingPhase.FAILED, status!.reason);
      if (!holds(status!)) continue;
      found = status!;
      // Ended by its signal, a stream clears its deadline's timer; left by a break, it would not.
      stop.abort();
    }
  } catch (error) {
    if (found === undefined) throw error;
  } finally {
    closeClient(client);
  }
  assert.ok(found, "the stream ended before what was waited for");
  return found;
}

test("post-training goes from hand-off to release through kills, with every false group refused", async () => {
  const ledger = await mesh.startLedger();
  const registry = await mesh.startRegistry();
  const checkpointRoot = await mesh.uploadPretrained(registry);
  let grail = await mesh.startGrail({ ledger, registry }, settings);
  const port = Number(grail.endpoint.split(":")[1]);
  const peers = { ledger, registry, grail };

  const client = clientOf(grail.endpoint);
  const request = { idempotencyKey: "once", runId: "tiny", checkpointRoot };
  const { jobId } = await client.startPostTraining(request);
  assert.equal((await client.startPostTraining(request)).jobId, jobId);
  await assert.rejects(client.startPostTraining({ ...request, idempotencyKey: "twice" }), (error) =>
    hasCode(error, "COV_POST_TRAINING_ACTIVE"),
  );
  await assert.rejects(client.startPostTraining({ ...request, runId: "other" }), (error) =>
    hasCode(error, "COV_IDEMPOTENCY_CONFLICT"),
  );
  closeClient(client);

  // In the middle of supervised tuning.
  await watchUntil(grail.endpoint, jobId, (status) => status.phase === 3 && status.step >= 40);
  await grail.kill("SIGKILL");
  grail = await mesh.startGrail({ ledger, registry }, settings, port);
  const resumed = await watchUntil(grail.endpoint, jobId, (status) => status.step >= 40);
  assert.ok(resumed.sftLossBefore > 0);

  const honest = await mesh.startWorker("honest", 11, peers, "honest");
  let second = await mesh.startWorker("second", 12, peers, "honest");
  const false1 = await mesh.startWorker("false", 13, peers, "substituted");
  await watchUntil(grail.endpoint, jobId, (status) => status.groupsAccepted >= 3);
  await second.kill("SIGKILL");
  await grail.kill("SIGKILL");
  grail = await mesh.startGrail({ ledger, registry }, settings, port);
  second = await mesh.startWorker("second", 12, peers, "honest");

  const end = await watchUntil(
    grail.endpoint,
    jobId,
    (status) => status.phase === PostTrainingPhase.FINISHED,
  );
  assert.ok(end.handoff!.bytes > 0n && end.handoff!.chunks > 0);
  assert.deepEqual(end.handoff!.root, checkpointRoot);
  assert.ok(end.sftLossAfter < end.sftLossBefore);
  assert.ok(end.policyVersion > 0);
  assert.ok(end.groupsAccepted > 0);
  const liar = end.workers[workerAddress(13)];
  assert.equal(liar?.accepted, 0);
  assert.ok(Object.values(liar!.rejected).some((count) => count > 0));
  for (const seed of [11, 12]) {
    assert.deepEqual(end.workers[workerAddress(seed)]?.rejected ?? {}, {});
  }
  for (const worker of [honest, second, false1]) assert.equal(await worker.exited, 0);
  await checkRelease(registry.endpoint, end);
});

async function checkRelease(endpoint: string, end: PostTrainingStatus): Promise<void> {
  const tls = mesh.tls.operator!;
  const url = `https://${endpoint}`;
  const client = createClient(CheckpointRegistry, { url, caFile: tls.caFile, tls });
  const { manifest } = await client.getManifest({ root: end.releaseRoot });
  assert.equal(manifest!.stage, CheckpointStage.RELEASE);
  assert.equal(manifest!.evaluation.reward_after, end.rewardAfter);
  assert.deepEqual(manifest!.parentRoot, end.policyRoot);
  closeClient(client);
}
