// A peer whose saved state or unfinished update is damaged sets the file aside, rebuilds, and ends with everybody else's root.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { toHex } from "@covenant/contracts";
import { TrainingMesh, until } from "../e2e/training-mesh.ts";

const roundDeadlineMs = 300_000;
const rounds = 5;

/** Flips a byte in the middle of a file. */
async function garble(file: string): Promise<void> {
  const bytes = await readFile(file);
  const middle = bytes.length >> 1;
  bytes[middle] = bytes[middle]! ^ 0xff;
  await writeFile(file, bytes);
}

test("a damaged trainer state costs work, never the run", { timeout: 900_000 }, async () => {
  const directory = await mkdtemp(path.join(tmpdir(), "covenant-corrupt-"));
  const mesh = new TrainingMesh(directory, { rounds, minimumPeers: 2, checkpointEveryRounds: 2 });
  const signed = (number: number) =>
    until(`round ${number} to be signed`, roundDeadlineMs, async () => {
      const round = await mesh.round(number);
      return round?.signedManifest ? round : undefined;
    });
  try {
    await mesh.prepare();
    await mesh.startValidator();
    await Promise.all([mesh.startPeer("alice", "honest"), mesh.startPeer("bob", "honest")]);
    await signed(1);
    await mesh.kill("bob");
    const state = path.join(mesh.dataOf("bob"), "trainer.state");
    await garble(state);
    await mesh.startPeer("bob", "honest");
    for (const peer of ["alice", "bob"]) {
      assert.equal(await mesh.exited(peer), 0, `${peer}:\n${mesh.log(peer).slice(-4000)}`);
    }
    assert.match(mesh.log("bob"), /COV_STATE_CORRUPT/);
    assert.ok(existsSync(`${state}.corrupt`), "the damaged file is kept for inspection");
    const last = await signed(rounds - 1);
    const expected = toHex(last.signedManifest!.manifest!.postStateRoot);
    for (const peer of ["alice", "bob"]) {
      const reported = last.appliedRoots[mesh.address(peer)];
      assert.equal(reported && toHex(reported), expected, peer);
    }
    const contributors = last.signedManifest!.manifest!.contributors.map(({ hotkey }) => hotkey);
    assert.ok(contributors.includes(mesh.address("bob")), "its work counts again");
  } catch (error) {
    for (const name of ["validator", "alice", "bob"]) {
      process.stderr.write(`--- ${name}\n${mesh.log(name).slice(-4000)}\n`);
    }
    throw error;
  } finally {
    await mesh.stop();
    await rm(directory, { recursive: true, force: true });
  }
});
