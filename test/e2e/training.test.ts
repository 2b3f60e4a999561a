import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { toHex } from "@covenant/contracts";
import { type Round, RoundState, VerdictReason } from "@covenant/contracts/gauntlet";
import { TrainingMesh, until } from "./training-mesh.ts";

const ROUND_DEADLINE_MS = 180_000;
const honest = ["alice", "bob", "carol"];
const dishonest = ["mallory", "nora"];

async function withMesh(
  options: ConstructorParameters<typeof TrainingMesh>[1],
  work: (mesh: TrainingMesh) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(path.join(tmpdir(), "covenant-training-"));
  const mesh = new TrainingMesh(directory, options);
  try {
    await mesh.prepare();
    await work(mesh);
  } catch (error) {
    for (const name of ["validator", "second", "third", "alice", "carol", "mallory"]) {
      process.stderr.write(`--- ${name}\n${mesh.log(name).slice(-6000)}\n`);
    }
    throw error;
  } finally {
    await mesh.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

function signedRound(mesh: TrainingMesh, number: number, validator?: string): Promise<Round> {
  return until(`round ${number} to be signed`, ROUND_DEADLINE_MS, async () => {
    const round = await mesh.round(number, validator);
    return round?.signedManifest === undefined ? undefined : round;
  });
}

function checkpointed(mesh: TrainingMesh, number: number): Promise<Round> {
  return until(`the checkpoint of round ${number}`, ROUND_DEADLINE_MS, async () => {
    const round = await mesh.round(number);
    return round?.state === RoundState.CHECKPOINTED ? round : undefined;
  });
}

/** Every peer of the list has reported the root that the manifest names. */
async function assertEqualRoots(mesh: TrainingMesh, number: number, peers: readonly string[]) {
  const round = await until(`roots of round ${number}`, ROUND_DEADLINE_MS, async () => {
    const seen = await mesh.round(number);
    const complete = peers.every((peer) => seen?.appliedRoots[mesh.address(peer)] !== undefined);
    return complete ? seen : undefined;
  });
  const expected = toHex(round.signedManifest!.manifest!.postStateRoot);
  for (const peer of peers) {
    assert.equal(toHex(round.appliedRoots[mesh.address(peer)]!), expected, `${peer} in ${number}`);
  }
  return round;
}

test("honest peers, a copier and a noise sender: equal roots, and only work is paid", async () => {
  const rounds = 4;
  await withMesh({ rounds, minimumPeers: 5, checkpointEveryRounds: 2 }, async (mesh) => {
    await mesh.startValidator();
    await Promise.all([
      mesh.startPeer("alice", "honest", { verifyMerge: true }),
      mesh.startPeer("bob", "honest"),
      mesh.startPeer("carol", "honest"),
      mesh.startPeer("mallory", "copier"),
      mesh.startPeer("nora", "noise"),
    ]);
    const everybody = [...honest, ...dishonest];
    for (let number = 0; number < rounds; number += 1) {
      const round = await assertEqualRoots(mesh, number, everybody);
      const { contributors } = round.signedManifest!.manifest!;
      const names = contributors.map(({ hotkey }) => hotkey);
      for (const peer of dishonest) assert.ok(!names.includes(mesh.address(peer)), peer);
      assert.ok(contributors.length >= 2, `${contributors.length} contributors in ${number}`);
      const copier = round.verdicts.find(({ hotkey }) => hotkey === mesh.address("mallory"));
      assert.equal(copier?.reason, VerdictReason.COPY, copier?.explanation);
      const noise = round.verdicts.find(({ hotkey }) => hotkey === mesh.address("nora"));
      assert.equal(noise?.reason, VerdictReason.NO_IMPROVEMENT, noise?.explanation);
    }
    const first = (await mesh.round(0))!;
    const last = await checkpointed(mesh, rounds - 1);
    assert.ok(last.heldOutBitsPerByte < first.initialBitsPerByte, "the model learns");
    const { scores } = await mesh.validator().getScorecard({});
    const shareOf = (peer: string) =>
      scores.find(({ hotkey }) => hotkey === mesh.address(peer))!.weightShare;
    for (const peer of honest) assert.ok(shareOf(peer) > 0.1, `${peer}: ${shareOf(peer)}`);
    for (const peer of dishonest) assert.equal(shareOf(peer), 0, peer);
    for (const peer of everybody) assert.equal(await mesh.exited(peer), 0, `${peer} ends well`);
  });
});

test("a trainer and the validator are killed in mid-round; a peer joins late", async () => {
  const rounds = 8;
  await withMesh({ rounds, minimumPeers: 2, checkpointEveryRounds: 2 }, async (mesh) => {
    await mesh.startValidator();
    await Promise.all([mesh.startPeer("alice", "honest"), mesh.startPeer("bob", "honest")]);
    await signedRound(mesh, 0);
    await mesh.kill("alice");
    await mesh.startPeer("alice", "honest");
    const before = await signedRound(mesh, 1);
    await checkpointed(mesh, 1);
    await mesh.kill("validator");
    // Carol's endpoint is on the ledger while nobody judges: the next round that opens waits for her.
    await mesh.startPeer("carol", "honest", { checkpointBehindRounds: 1 });
    await mesh.startValidator();
    const everybody = ["alice", "bob", "carol"];
    for (const peer of everybody) assert.equal(await mesh.exited(peer), 0, `${peer} ends well`);
    for (let number = 0; number < rounds; number += 1) {
      await assertEqualRoots(mesh, number, ["alice", "bob"]);
    }
    const last = await assertEqualRoots(mesh, rounds - 1, everybody);
    const contributors = last.signedManifest!.manifest!.contributors.map(({ hotkey }) => hotkey);
    for (const peer of everybody) assert.ok(contributors.includes(mesh.address(peer)), peer);
    const after = (await mesh.round(1))!;
    assert.deepEqual(after.signedManifest, before.signedManifest, "a signed round never changes");
    assert.match(mesh.log("carol"), /joined from a checkpoint/);
  });
});

test("no validator has a quorum alone; the first one dies and the others go on", async () => {
  const rounds = 4;
  await withMesh({ rounds, minimumPeers: 2, checkpointEveryRounds: 4 }, async (mesh) => {
    const tao = "000000000";
    await mesh.startValidator("validator", `400${tao}`);
    await mesh.startValidator("second", `350${tao}`);
    await mesh.startValidator("third", `250${tao}`);
    await Promise.all([mesh.startPeer("alice", "honest"), mesh.startPeer("bob", "honest")]);
    const early = [await signedRound(mesh, 0), await signedRound(mesh, 1)];
    for (const round of early) assert.ok(round.signedManifest!.signatures.length >= 2);
    await mesh.kill("validator");
    for (let number = 0; number < rounds; number += 1) {
      const [left, right] = [
        await signedRound(mesh, number, "second"),
        await signedRound(mesh, number, "third"),
      ];
      const { manifest } = left.signedManifest!;
      assert.deepEqual(right.signedManifest!.manifest, manifest, `round ${number}`);
      const earlier = early[number]?.signedManifest;
      if (earlier) assert.deepEqual(manifest, earlier.manifest, "what was signed stays");
    }
    for (const peer of ["alice", "bob"]) assert.equal(await mesh.exited(peer), 0, `${peer} ends`);
  });
});
