import { strict as assert } from "node:assert";
import { once } from "node:events";
import { createServer, request, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { test } from "node:test";
import { CovenantError, hasCode, systemClock } from "@covenant/runtime";
import { z } from "zod";
import type { RunningChain } from "../chain/chain.ts";
import { startTestChain, withDirectory } from "../chain/testing.ts";
import type { Ledger } from "../ledger.ts";
import { TEST_NETUID as netuid, testKey } from "../state/testing.ts";
import { connectLedger } from "./connect.ts";
import { RpcClient } from "./rpc-client.ts";
import { Submitter } from "./submitter.ts";

const alice = testKey("alice");
const BLOCK_TIME_MS = 5;

/** A chain, and a ledger connected to it through whatever `urlOf` puts in between. */
async function withChain(
  work: (parts: { chain: RunningChain; ledger: Ledger; dataDirectory: string }) => Promise<void>,
  between: (chainUrl: string) => Promise<{ url: string; close(): void }> = async (url) => ({
    url,
    close: () => undefined,
  }),
): Promise<void> {
  await withDirectory(async (dataDirectory) => {
    const chain = await startTestChain({ dataDirectory, blockTimeMs: BLOCK_TIME_MS });
    const middle = await between(chain.url);
    const ledger = connectLedger({ url: middle.url, timeoutMs: 20_000 });
    try {
      await work({ chain, ledger, dataDirectory });
    } finally {
      ledger.close();
      middle.close();
      await chain.drain();
    }
  });
}

async function listening(server: Server): Promise<{ url: string; close(): void }> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${port}`, close };
}

/** Forwards every request, but cuts the connection instead of answering when `loses` says so. */
function lossyProxy(chainUrl: string, loses: (body: string) => boolean) {
  const server = createServer((incoming, answer) => {
    const parts: Buffer[] = [];
    incoming.on("data", (part: Buffer) => parts.push(part));
    incoming.once("end", () => {
      const body = Buffer.concat(parts);
      const forward = request(chainUrl, { method: "POST" }, (response) => {
        if (loses(body.toString())) {
          response.resume();
          response.once("end", () => answer.destroy());
          return;
        }
        answer.writeHead(response.statusCode ?? 500, response.headers);
        response.pipe(answer);
      });
      forward.once("error", () => answer.destroy());
      forward.end(body);
    });
  });
  return listening(server);
}

/** A server that treats every request in the same way. */
function fixedServer(handle: (response: ServerResponse) => void) {
  return listening(
    createServer((incoming, response) => {
      incoming.resume();
      incoming.once("end", () => handle(response));
    }),
  );
}

test("a lost acknowledgement does not repeat the extrinsic", async () => {
  let lost = 0;
  const loses = (body: string): boolean => body.includes("author_submit") && lost++ < 3;
  await withChain(
    async ({ ledger }) => {
      const before = await ledger.balance(alice.address);
      const hotkey = testKey("h1");
      await ledger.ensureRegistered({ netuid, hotkey, coldkey: alice });
      const paid = before - (await ledger.balance(alice.address));
      const stake = { coldkey: alice, hotkey: hotkey.address, netuid, amountRao: 1000n };
      await ledger.addStake(stake);
      assert.equal(await ledger.balance(alice.address), before - paid - 1000n);
      assert.ok(lost > 3, "answers were lost");
    },
    (url) => lossyProxy(url, loses),
  );
});

test("two clients that share a key both get through", async () => {
  await withChain(async ({ chain, ledger }) => {
    const other = connectLedger({ url: chain.url, timeoutMs: 20_000 });
    const hotkey = testKey("h1");
    await ledger.ensureRegistered({ netuid, hotkey, coldkey: alice });
    const before = await ledger.balance(alice.address);
    const stake = { coldkey: alice, hotkey: hotkey.address, netuid, amountRao: 1000n };
    const clients = [ledger, other, ledger, other, ledger, other];
    await Promise.all(clients.map((client) => client.addStake(stake)));
    assert.equal(await ledger.balance(alice.address), before - 6000n);
    other.close();
  });
});

test("a restart in the middle of calls is waited for", async () => {
  await withDirectory(async (dataDirectory) => {
    const options = { dataDirectory, blockTimeMs: BLOCK_TIME_MS };
    let chain = await startTestChain(options);
    const port = Number(new URL(chain.url).port);
    const ledger = connectLedger({ url: chain.url, timeoutMs: 20_000 });
    const hotkey = testKey("h1");
    await ledger.ensureRegistered({ netuid, hotkey, coldkey: alice });
    const before = await ledger.randomness(1);
    await chain.drain();
    const commitment = ledger.setCommitment({ netuid, hotkey, fields: [Uint8Array.of(1)] });
    const waited = ledger.waitForBlock((await restart()) + 2);
    const { block } = await commitment;
    assert.equal((await ledger.commitment(netuid, hotkey.address))?.block, block);
    await waited;
    assert.deepEqual(await ledger.randomness(1), before, "the same blocks as before");
    ledger.close();
    await chain.drain();

    async function restart(): Promise<number> {
      chain = await startTestChain({ ...options, port });
      return Number((await ledger.headBlock()) ?? 0);
    }
  });
});

test("another chain at the same address is noticed", async () => {
  await withDirectory(async (first) => {
    await withDirectory(async (second) => {
      let chain = await startTestChain({ dataDirectory: first });
      const port = Number(new URL(chain.url).port);
      const ledger = connectLedger({ url: chain.url, timeoutMs: 20_000 });
      await ledger.headBlock();
      await chain.drain();
      chain = await startTestChain({ dataDirectory: second, port, name: "another" });
      await assert.rejects(ledger.headBlock(), (error) =>
        hasCode(error, "COV_LEDGER_CHAIN_CHANGED"),
      );
      ledger.close();
      await chain.drain();
    });
  });
});

test("the same genesis with an older head is noticed", async () => {
  await withDirectory(async (first) => {
    await withDirectory(async (second) => {
      let chain = await startTestChain({ dataDirectory: first });
      const port = Number(new URL(chain.url).port);
      const rpc = new RpcClient({ url: chain.url }, { clock: systemClock });
      const limits = { timeoutMs: 20_000 };
      await rpc.call("dev_produceBlocks", { count: 100 }, z.unknown(), limits);
      await chain.drain();
      chain = await startTestChain({ dataDirectory: second, port });
      await assert.rejects(rpc.call("chain_head", {}, z.unknown(), limits), (error) =>
        hasCode(error, "COV_LEDGER_CHAIN_CHANGED"),
      );
      rpc.close();
      await chain.drain();
    });
  });
});

test("a ledger that is not there, and one that never answers, end by code", async () => {
  const silent = await fixedServer(() => undefined);
  const slow = connectLedger({ url: silent.url, timeoutMs: 30 });
  await assert.rejects(slow.headBlock(), (error) => hasCode(error, "COV_DEADLINE_EXCEEDED"));
  const closing = connectLedger({ url: silent.url, timeoutMs: 20_000 });
  const waiting = closing.headBlock();
  closing.close();
  await assert.rejects(waiting, (error) => hasCode(error, "COV_CANCELLED"));
  silent.close();
  slow.close();
  const gone = connectLedger({ url: silent.url, timeoutMs: 20_000 });
  await assert.rejects(gone.headBlock(), (error) => hasCode(error, "COV_LEDGER_UNAVAILABLE"));
  gone.close();
});

test("answers that are not a ledger's are refused, not believed", async () => {
  const headers = { "x-covenant-head": "5", "x-covenant-genesis": "aa".repeat(32) };
  const bodies = [
    "",
    "<html>",
    "null",
    '{"jsonrpc":"2.0","id":1}',
    '{"jsonrpc":"2.0","id":1,"result":{"number":"five"}}',
    '{"jsonrpc":"2.0","id":1,"error":"x"}',
  ];
  for (const body of bodies) {
    const server = await fixedServer((response) => response.writeHead(200, headers).end(body));
    const ledger = connectLedger({ url: server.url, timeoutMs: 20_000 });
    await assert.rejects(
      ledger.headBlock(),
      (error) => hasCode(error, "COV_LEDGER_ANSWER_INVALID"),
      body,
    );
    ledger.close();
    server.close();
  }
  const bare = await fixedServer((response) => response.end('{"jsonrpc":"2.0","result":{}}'));
  const ledger = connectLedger({ url: bare.url, timeoutMs: 20_000 });
  await assert.rejects(ledger.headBlock(), (error) => hasCode(error, "COV_LEDGER_ANSWER_INVALID"));
  ledger.close();
  bare.close();
});

test("a refusal names the rule and the call, and says whether waiting helps", async () => {
  await withChain(async ({ ledger }) => {
    const stranger = testKey("stranger");
    const vector = { netuid, hotkey: stranger, uids: [], weights: [], versionKey: 0 };
    await assert.rejects(ledger.setWeights(vector), (error) => {
      assert.ok(error instanceof CovenantError);
      assert.equal(error.code, "COV_LEDGER_REJECTED");
      assert.equal(error.retryable, false);
      assert.deepEqual(error.metadata, {
        name: "HotKeyNotRegisteredInSubNet",
        call: "setWeights",
      });
      return true;
    });
    await ledger.ensureRegistered({ netuid, hotkey: stranger, coldkey: alice });
    await assert.rejects(ledger.setWeights(vector), (error) => {
      assert.ok(error instanceof CovenantError);
      return error.retryable && error.metadata.name === "SettingWeightsTooFast";
    });
    await assert.rejects(ledger.metagraph(99), (error) => hasCode(error, "COV_NOT_FOUND"));
  });
});

test("a failed call does not block the calls of its key that come after it", async () => {
  await withChain(async ({ chain, ledger }) => {
    const rpc = new RpcClient({ url: chain.url }, { clock: systemClock });
    const submitter = new Submitter({ timeoutMs: 20_000 }, { rpc, clock: systemClock });
    const transfer = (amountRao: string) =>
      submitter.submit(alice, {
        name: "transfer",
        args: { destination: testKey("x").address, amountRao },
      });
    const results = await Promise.allSettled([transfer("600"), transfer("0"), transfer("600")]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled"],
    );
    assert.equal(await ledger.balance(testKey("x").address), 1200n);
    rpc.close();
  });
});

test("a connection that is opened and never used does not keep the chain from stopping", async () => {
  await withChain(async ({ chain, ledger }) => {
    await ledger.headBlock();
    const idle = connect(Number(new URL(chain.url).port), "127.0.0.1");
    await once(idle, "connect");
    idle.on("error", () => undefined);
  });
});
