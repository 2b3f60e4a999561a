// Disks garble files. A service that meets a damaged file says which one and touches nothing, or cuts off what it never acknowledged.
import assert from "node:assert/strict";
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { hotkeyFromSeed, sha256 } from "@covenant/contracts";
import { connectLedger } from "@covenant/ledger";
import { createDevelopmentCa, issueCertificate } from "@covenant/runtime";
import { ServiceProcess, scratchDirectory } from "../support/service-process.ts";

const netuid = 1;
const key = (name: string) => hotkeyFromSeed(sha256(new TextEncoder().encode(name)));
const timeout = 600_000;

/** Overwrites some bytes in the middle of a file. */
function garble(file: string, at: number): void {
  const bytes = readFileSync(file);
  for (let i = at; i < Math.min(bytes.length, at + 64); i += 1) bytes[i]! ^= 0x5a;
  writeFileSync(file, bytes);
}

describe("a damaged ledger", { timeout }, () => {
  const { directory, remove } = scratchDirectory();
  const ledger = new ServiceProcess("ledger", "packages/ledger/src/chain/main.ts", directory);
  const data = path.join(directory, "data");
  const treasury = key("treasury");
  const config = {
    listen: { host: "127.0.0.1", port: 0 },
    dataDirectory: data,
    blockTimeMs: 20,
    genesis: {
      balances: { [treasury.address]: 1_000_000 },
      subnets: [{ netuid, preset: "development", owner: treasury.address }],
    },
  };
  const said: { value: number; block: number }[] = [];
  let log: string;

  before(async () => {
    const client = connectLedger({
      url: `http://${await ledger.serve(config)}`,
      timeoutMs: 60_000,
    });
    await client.ensureRegistered({ netuid, hotkey: key("peer"), coldkey: treasury });
    for (let value = 1; value <= 5; value += 1) {
      const fields = [Uint8Array.of(value)];
      const { block } = await client.setCommitment({ netuid, hotkey: key("peer"), fields });
      said.push({ value, block });
    }
    client.close();
    await ledger.kill();
    const segments = readdirSync(data).filter((name) => name.endsWith(".log"));
    log = path.join(data, segments.sort().at(-1)!);
    copyFileSync(log, path.join(directory, "good.log"));
  });
  after(async () => {
    await ledger.kill();
    remove();
  });
  const restore = () => copyFileSync(path.join(directory, "good.log"), log);

  const assertRemembers = async () => {
    const client = connectLedger({
      url: `http://${await ledger.serve(config)}`,
      timeoutMs: 60_000,
    });
    const found = await client.commitment(netuid, key("peer").address);
    assert.equal(found?.fields[0]?.[0], said.at(-1)?.value);
    assert.equal(found?.block, said.at(-1)?.block);
    client.close();
    await ledger.kill();
  };

  it("cuts off a record that a crash left unfinished, and keeps all before it", async () => {
    const size = statSync(log).size;
    writeFileSync(log, Buffer.concat([readFileSync(log), Buffer.from([40, 0, 0, 0, 1, 2, 3])]));
    await assertRemembers();
    assert.ok(statSync(log).size >= size);
  });

  it("refuses a log with damage in its middle, names the place, changes nothing", async () => {
    restore();
    garble(log, Math.floor(statSync(log).size / 2));
    const damaged = readFileSync(log);
    const outcome = await ledger.start(config);
    assert.deepEqual(outcome, { exitCode: 1 }, ledger.log.slice(-2000));
    assert.match(ledger.log, /COV_LEDGER_LOG_CORRUPT/);
    assert.match(ledger.log, new RegExp(path.basename(log)));
    assert.deepEqual(readFileSync(log), damaged, "evidence is not rewritten");
  });

  it("goes on from the repaired log as if nothing had been", async () => {
    restore();
    await assertRemembers();
  });
});

describe("a damaged registry", { timeout }, () => {
  const { directory, remove } = scratchDirectory();
  const registry = new ServiceProcess(
    "checkpoint-registry",
    "services/checkpoint-registry/src/main.ts",
    directory,
  );
  const data = path.join(directory, "data");
  const database = path.join(data, "registry.sqlite");
  const good = path.join(directory, "good.sqlite");
  let config: object;

  before(async () => {
    const pki = path.join(directory, "pki");
    await createDevelopmentCa(pki);
    config = {
      listen: { host: "127.0.0.1", port: 0 },
      tls: await issueCertificate(pki, "checkpoint-registry"),
      dataDirectory: data,
    };
    await registry.serve(config);
    assert.equal(await registry.kill("SIGTERM"), 0, registry.log.slice(-2000));
    copyFileSync(database, good);
  });
  after(async () => {
    await registry.kill();
    remove();
  });

  const damages: [string, () => void][] = [
    ["is garbled in the middle", () => garble(database, 4096)],
    ["is no database at all", () => writeFileSync(database, "not a database".repeat(1000))],
    ["has lost its end", () => truncateSync(database, statSync(database).size - 4096 - 17)],
  ];
  for (const [what, damage] of damages) {
    it(`refuses a file that ${what}, names it, changes nothing`, async () => {
      for (const suffix of ["-wal", "-shm"]) rmSync(database + suffix, { force: true });
      copyFileSync(good, database);
      damage();
      const damaged = readFileSync(database);
      const outcome = await registry.start(config);
      assert.deepEqual(outcome, { exitCode: 1 }, registry.log.slice(-2000));
      assert.match(registry.log, /COV_DATABASE_CORRUPT/);
      assert.match(registry.log, /registry\.sqlite/);
      assert.deepEqual(readFileSync(database), damaged, "evidence is not rewritten");
    });
  }

  it("serves again with the file put back, also after kill -9", async () => {
    for (const suffix of ["-wal", "-shm"]) rmSync(database + suffix, { force: true });
    copyFileSync(good, database);
    await registry.serve(config);
    await registry.kill();
    await registry.serve(config);
    assert.ok(existsSync(database));
  });
});
