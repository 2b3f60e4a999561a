import { strict as assert } from "node:assert";
import { readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode } from "@covenant/runtime";
import { stateHash } from "../state/invariants.ts";
import { TEST_NETUID, TestChain, testGenesis, testKey } from "../state/testing.ts";
import { encodeRecord, scanRecords } from "./record.ts";
import { ChainStore } from "./store.ts";
import { testConfig, withDirectory } from "./testing.ts";

const ENTROPY = "11".repeat(32);

function openStore(directory: string, name?: string): Promise<ChainStore> {
  const options = { dataDirectory: directory, ...(name === undefined ? {} : { name }) };
  return ChainStore.open(directory, testConfig(options).genesis);
}

/** Appends blocks with one transfer each. */
async function appendBlocks(store: ChainStore, count: number): Promise<void> {
  const signer = new TestChain(testGenesis());
  for (let made = 0; made < count; made++) {
    signer.state = store.state;
    const destination = testKey(`receiver-${store.state.head.number}`).address;
    const args = { destination, amountRao: "1000" };
    const extrinsic = signer.sign(testKey("alice"), { name: "transfer", args });
    const timeMs = store.state.head.timeMs + 250;
    const applied = await store.append({ timeMs, entropy: ENTROPY, extrinsics: [extrinsic] });
    assert.equal(applied.receipts[0]!.error, undefined);
  }
}

async function onlyLog(directory: string): Promise<string> {
  const logs = (await readdir(directory)).filter((name) => name.endsWith(".log"));
  assert.equal(logs.length, 1);
  return join(directory, logs[0]!);
}

test("opening again gives the same chain, from log alone and from snapshot and log", async () => {
  await withDirectory(async (directory) => {
    let store = await openStore(directory);
    await appendBlocks(store, 5);
    const afterFive = stateHash(store.state);
    await store.close();

    store = await openStore(directory);
    assert.deepEqual(store.recovery, { snapshotBlock: 0, replayedBlocks: 5, tornBytes: 0 });
    assert.equal(stateHash(store.state), afterFive);
    const firstHash = (await store.hashes.at(1))!.toString("hex");
    await store.snapshot();
    await appendBlocks(store, 3);
    const afterEight = stateHash(store.state);
    const receipts = store.receipts.all();
    await store.close();

    store = await openStore(directory);
    assert.deepEqual(store.recovery, { snapshotBlock: 5, replayedBlocks: 3, tornBytes: 0 });
    assert.equal(stateHash(store.state), afterEight);
    assert.deepEqual(store.receipts.all(), receipts);
    assert.equal((await store.hashes.at(1))!.toString("hex"), firstHash);
    assert.equal((await store.hashes.at(8))!.toString("hex"), store.state.head.hash);
    assert.equal(await store.hashes.at(9), undefined);
    await store.close();
  });
});

test("a crash at any byte of the last block loses that block and nothing else", async () => {
  await withDirectory(async (directory) => {
    let store = await openStore(directory);
    await appendBlocks(store, 3);
    const acknowledged = stateHash(store.state);
    const path = await onlyLog(directory);
    const durableBytes = (await readFile(path)).length;
    await appendBlocks(store, 1);
    const complete = stateHash(store.state);
    await store.close();
    const whole = await readFile(path);

    for (let cut = durableBytes; cut <= whole.length; cut++) {
      await writeFile(path, whole.subarray(0, cut));
      store = await openStore(directory);
      const isWhole = cut === whole.length;
      assert.equal(stateHash(store.state), isWhole ? complete : acknowledged, `cut at ${cut}`);
      assert.equal(store.recovery.tornBytes, isWhole ? 0 : cut - durableBytes);
      await store.close();
      if (!isWhole) assert.equal((await readFile(path)).length, durableBytes);
    }
  });
});

test("a crash within the first segment's header leaves an empty chain that goes on", async () => {
  await withDirectory(async (directory) => {
    let store = await openStore(directory);
    await store.close();
    const path = await onlyLog(directory);
    await truncate(path, 10);
    store = await openStore(directory);
    assert.equal(store.state.head.number, 0);
    await appendBlocks(store, 2);
    await store.close();
    store = await openStore(directory);
    assert.equal(store.state.head.number, 2);
    await store.close();
  });
});

test("damage in the middle stops the chain, wherever it is, and changes nothing", async () => {
  await withDirectory(async (directory) => {
    const store = await openStore(directory);
    await appendBlocks(store, 4);
    await store.close();
    const path = await onlyLog(directory);
    const whole = await readFile(path);
    const headerEnd = whole.indexOf(0x0a) + 1;
    const lastRecord = scanRecords(whole, headerEnd).payloads.at(-1)!.length + 12;
    for (let offset = headerEnd; offset < whole.length - lastRecord; offset += 37) {
      const damaged = Buffer.from(whole);
      damaged[offset]! ^= 0x55;
      await writeFile(path, damaged);
      await assert.rejects(openStore(directory), (error) =>
        hasCode(error, "COV_LEDGER_LOG_CORRUPT"),
      );
      assert.deepEqual(await readFile(path), damaged, "the evidence is left as it is");
    }
  });
});

test("a block that was changed with matching checksums is noticed by its hash", async () => {
  await withDirectory(async (directory) => {
    const store = await openStore(directory);
    await appendBlocks(store, 2);
    await store.close();
    const path = await onlyLog(directory);
    const whole = await readFile(path);
    const headerEnd = whole.indexOf(0x0a) + 1;
    const forged = scanRecords(whole, headerEnd).payloads.map((payload) =>
      encodeRecord(Buffer.from(Buffer.from(payload).toString().replace('"1000"', '"9000"'))),
    );
    await writeFile(path, Buffer.concat([whole.subarray(0, headerEnd), ...forged]));
    await assert.rejects(openStore(directory), (error) => hasCode(error, "COV_LEDGER_LOG_CORRUPT"));
  });
});

test("a missing block between snapshot and log is noticed", async () => {
  await withDirectory(async (directory) => {
    const store = await openStore(directory);
    await appendBlocks(store, 3);
    await store.close();
    const path = await onlyLog(directory);
    const whole = await readFile(path);
    const headerEnd = whole.indexOf(0x0a) + 1;
    const rest = scanRecords(whole, headerEnd).payloads.slice(1).map(encodeRecord);
    await writeFile(path, Buffer.concat([whole.subarray(0, headerEnd), ...rest]));
    await assert.rejects(openStore(directory), (error) => hasCode(error, "COV_LEDGER_LOG_CORRUPT"));
  });
});

test("a damaged snapshot falls back to the one before and the log after it", async () => {
  await withDirectory(async (directory) => {
    let store = await openStore(directory);
    await appendBlocks(store, 2);
    await store.snapshot();
    await appendBlocks(store, 2);
    await store.snapshot();
    await appendBlocks(store, 1);
    const expected = stateHash(store.state);
    await store.close();
    const newest = join(directory, "snapshot-000000000004.json");
    const text = await readFile(newest, "utf8");
    await writeFile(newest, text.replace('"nonce":4', '"nonce":5'));
    store = await openStore(directory);
    assert.equal(store.recovery.snapshotBlock, 2);
    assert.equal(stateHash(store.state), expected);
    await store.close();
  });
});

test("old snapshots and the log before them are removed", async () => {
  await withDirectory(async (directory) => {
    let store = await openStore(directory);
    for (let round = 0; round < 5; round++) {
      await appendBlocks(store, 2);
      await store.snapshot();
    }
    const expected = stateHash(store.state);
    await store.close();
    const names = (await readdir(directory)).sort();
    assert.deepEqual(names, [
      "block-hashes",
      "blocks-000000000009.log",
      "blocks-000000000011.log",
      "snapshot-000000000008.json",
      "snapshot-000000000010.json",
    ]);
    store = await openStore(directory);
    assert.equal(stateHash(store.state), expected);
    await store.close();
  });
});

test("another genesis is another chain", async () => {
  await withDirectory(async (directory) => {
    const store = await openStore(directory);
    await appendBlocks(store, 1);
    await store.close();
    await assert.rejects(openStore(directory, "other"), (error) =>
      hasCode(error, "COV_LEDGER_CHAIN_CHANGED"),
    );
  });
});

test("a shortened file of hashes is noticed", async () => {
  await withDirectory(async (directory) => {
    const store = await openStore(directory);
    await appendBlocks(store, 3);
    await store.snapshot();
    await store.close();
    await truncate(join(directory, "block-hashes"), 64);
    await assert.rejects(openStore(directory), (error) => hasCode(error, "COV_LEDGER_LOG_CORRUPT"));
  });
});

test("registrations, stakes and commitments survive as they were", async () => {
  await withDirectory(async (directory) => {
    let store = await openStore(directory);
    const signer = new TestChain(testGenesis());
    signer.state = store.state;
    const hotkey = testKey("h1");
    const register = { netuid: TEST_NETUID, hotkey: hotkey.address };
    const commit = { netuid: TEST_NETUID, fields: ["00ff"] };
    const extrinsics = [
      signer.sign(testKey("alice"), { name: "burnedRegister", args: register }),
      signer.sign(hotkey, { name: "setCommitment", args: commit }),
    ];
    await store.append({ timeMs: 1, entropy: ENTROPY, extrinsics });
    await store.snapshot();
    await store.close();
    store = await openStore(directory);
    const subnet = store.state.subnets.get(TEST_NETUID)!;
    assert.deepEqual(subnet.commitments.get(hotkey.address), {
      fields: ["00ff"],
      block: 1,
      index: 1,
    });
    assert.equal(subnet.uids.get(hotkey.address), 0);
    await store.close();
  });
});
