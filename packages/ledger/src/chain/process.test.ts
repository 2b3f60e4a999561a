import { strict as assert } from "node:assert";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { connectLedger } from "../client/connect.ts";
import { TEST_NETUID as netuid, testGenesis, testKey } from "../state/testing.ts";
import { withDirectory } from "./testing.ts";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));

/** Starts the chain's own process and waits until it serves. */
async function startProcess(directory: string): Promise<{ url: string; process: ChildProcess }> {
  const configFile = join(directory, "chain.json");
  const readyFile = join(directory, "ready.json");
  await rm(readyFile, { force: true });
  const config = {
    dataDirectory: join(directory, "data"),
    blockTimeMs: 10,
    snapshotIntervalBlocks: 20,
    genesis: testGenesis(),
  };
  await writeFile(configFile, JSON.stringify(config));
  const child = spawn(process.execPath, [MAIN, "--config", configFile], {
    env: { ...process.env, COVENANT_READY_FILE: readyFile, COVENANT_LOG_LEVEL: "error" },
    stdio: ["ignore", "inherit", "inherit"],
  });
  for (;;) {
    const text = await readFile(readyFile, "utf8").catch(() => "");
    if (text !== "") {
      const { endpoint } = JSON.parse(text) as { endpoint: string };
      return { url: `http://${endpoint}`, process: child };
    }
    assert.equal(child.exitCode, null, "the chain ended before it served");
    await delay(20);
  }
}

test("killed again and again while busy, the chain keeps all that it acknowledged", async () => {
  await withDirectory(async (directory) => {
    const alice = testKey("alice");
    const hotkey = testKey("h1");
    const acknowledged: { value: number; block: number }[] = [];
    const seen = new Map<number, Uint8Array>();
    let value = 0;
    for (let life = 0; life < 3; life++) {
      const running = await startProcess(directory);
      const ledger = connectLedger({ url: running.url, timeoutMs: 20_000 });
      await ledger.ensureRegistered({ netuid, hotkey, coldkey: alice });
      for (const [block, randomness] of seen) {
        assert.deepEqual(await ledger.randomness(block), randomness, `block ${block} changed`);
      }
      const last = acknowledged.at(-1);
      if (last !== undefined) {
        const found = await ledger.commitment(netuid, hotkey.address);
        assert.ok(found !== undefined && found.block >= last.block);
        assert.ok(found.fields[0]![0]! >= last.value, "an acknowledged commitment was lost");
      }
      const until = acknowledged.length + 8;
      while (acknowledged.length < until) {
        value += 1;
        const fields = [Uint8Array.of(value)];
        const { block } = await ledger.setCommitment({ netuid, hotkey, fields });
        acknowledged.push({ value, block });
        seen.set(block, await ledger.randomness(block));
      }
      const unfinished = ledger.setCommitment({ netuid, hotkey, fields: [Uint8Array.of(++value)] });
      unfinished.catch(() => undefined);
      running.process.kill("SIGKILL");
      await once(running.process, "exit");
      ledger.close();
    }
  });
});

test("told to stop, it stops cleanly and goes on where it was", async () => {
  await withDirectory(async (directory) => {
    const first = await startProcess(directory);
    const ledger = connectLedger({ url: first.url, timeoutMs: 20_000 });
    const head = await ledger.waitForBlock(3);
    ledger.close();
    first.process.kill("SIGTERM");
    assert.deepEqual(await once(first.process, "exit"), [0, null]);
    const second = await startProcess(directory);
    const again = connectLedger({ url: second.url, timeoutMs: 20_000 });
    assert.ok((await again.headBlock()) >= head);
    again.close();
    second.process.kill("SIGTERM");
    assert.deepEqual(await once(second.process, "exit"), [0, null]);
  });
});
