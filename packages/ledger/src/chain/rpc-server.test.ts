import { strict as assert } from "node:assert";
import { request } from "node:http";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { signExtrinsic } from "../state/extrinsic.ts";
import { TEST_NETUID as netuid, testKey } from "../state/testing.ts";
import type { RunningChain } from "./chain.ts";
import { BATCH_MAX, BODY_BYTES_MAX } from "./rpc-server.ts";
import { startTestChain, withDirectory } from "./testing.ts";

let chain: RunningChain;
let release: () => void;
let ended: Promise<void>;

before(async () => {
  const ready = Promise.withResolvers<void>();
  ended = withDirectory(async (dataDirectory) => {
    chain = await startTestChain({ dataDirectory });
    ready.resolve();
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    await chain.drain();
  });
  await ready.promise;
});

after(async () => {
  release();
  await ended;
});

interface Answer {
  status: number;
  body: string;
}

function post(body: string | Buffer, path = "/", method = "POST"): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(`${chain.url}${path}`, { method }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        text += part;
      });
      response.once("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
      response.once("error", reject);
    });
    sent.once("error", reject);
    sent.end(body);
  });
}

type Reply = { result?: unknown; error?: { code: number; message: string; data?: unknown } };

async function call(method: string, params: unknown = {}): Promise<Reply> {
  const answer = await post(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));
  return JSON.parse(answer.body) as Reply;
}

test("an answer carries result or typed error, and which chain it is from", async () => {
  const { result } = (await call("chain_status")) as { result: { genesisHash: string } };
  assert.match(result.genesisHash, /^[0-9a-f]{64}$/);
  assert.equal((await call("nonsense")).error?.code, -32_601);
  assert.equal((await call("metagraph", { netuid: "x" })).error?.code, -32_602);
  assert.equal((await call("metagraph", { netuid, extra: 1 })).error?.code, -32_602);
  assert.deepEqual((await call("metagraph", { netuid: 99 })).error?.data, {
    name: "SubnetNotExists",
  });
  assert.deepEqual((await call("chain_blockHash", { block: 1e9 })).error?.data, {
    name: "BlockNotFinal",
  });
});

test("batches are answered together, within their limit; notifications are not answered", async () => {
  const one = { jsonrpc: "2.0", id: 7, method: "chain_head" };
  const batch = await post(JSON.stringify([one, { ...one, id: undefined }, { ...one, id: "b" }]));
  const ids = (JSON.parse(batch.body) as { id: unknown }[]).map(({ id }) => id);
  assert.deepEqual(ids, [7, "b"]);
  const notification = await post(JSON.stringify({ jsonrpc: "2.0", method: "chain_head" }));
  assert.deepEqual(notification, { status: 204, body: "" });
  for (const items of [[], new Array(BATCH_MAX + 1).fill(one)]) {
    const refused = JSON.parse((await post(JSON.stringify(items))).body) as Reply;
    assert.equal(refused.error?.code, -32_600);
  }
});

test("garbage is answered with an error and changes nothing", async () => {
  const before = await call("chain_stateHash");
  const jsonLike = fc.json().map((text) => text);
  const requestLike = fc
    .record({
      jsonrpc: fc.constantFrom("2.0", "1.0"),
      id: fc.oneof(fc.integer(), fc.string(), fc.constant(null)),
      method: fc.constantFrom("author_submitAndWait", "account", "chain_waitForBlock", "weights"),
      params: fc.oneof(
        fc.jsonValue(),
        fc.record({ extrinsic: fc.jsonValue(), timeoutMs: fc.integer() }),
      ),
    })
    .map((value) => JSON.stringify(value));
  const bytes = fc.uint8Array({ maxLength: 300 }).map((value) => Buffer.from(value));
  await fc.assert(
    fc.asyncProperty(fc.oneof(jsonLike, requestLike, bytes), async (body) => {
      const answer = await post(body);
      assert.ok([200, 204].includes(answer.status));
      if (answer.status === 200) JSON.parse(answer.body);
      assert.doesNotMatch(answer.body, /-32603/, "never a fault of the server");
    }),
    { numRuns: 200 },
  );
  assert.deepEqual(await call("chain_stateHash"), before);
});

test("a body over the limit is refused without reading it all", async () => {
  const answer = await post(Buffer.alloc(BODY_BYTES_MAX + 1, 0x20));
  assert.equal(answer.status, 413);
});

test("other paths and methods are told what to do", async () => {
  assert.equal((await post("", "/other")).status, 404);
  assert.equal((await post("", "/", "PUT")).status, 404);
  const health = await post("", "/health", "GET");
  assert.equal(health.status, 200);
  assert.match(health.body, /"serving"/);
});

test("bytes that are not HTTP close their connection and no other", async () => {
  const { port } = new URL(chain.url);
  await new Promise<void>((resolve, reject) => {
    const socket = connect(Number(port), "127.0.0.1", () => socket.write("\0\x01garbage\r\n\r\n"));
    socket.resume();
    socket.once("close", () => resolve());
    socket.once("error", reject);
  });
  assert.ok((await call("chain_head")).result);
});

test("an extrinsic is acknowledged with its block; the same one again gets the same receipt", async () => {
  const alice = testKey("alice");
  const status = (await call("chain_status")).result as {
    genesisHash: string;
    head: { number: number };
  };
  const options = {
    call: { name: "transfer", args: { destination: testKey("x").address, amountRao: "700" } },
    nonce: 0,
    birthBlock: status.head.number,
    periodBlocks: 10,
    salt: "00".repeat(8),
    genesisHash: status.genesisHash,
  } as const;
  const extrinsic = signExtrinsic(options, alice);
  const early = await call("author_submitAndWait", { extrinsic, timeoutMs: 1 });
  assert.deepEqual(early.error?.data, { name: "DeadlineExceeded" });
  const both = [1, 2].map(() => call("author_submitAndWait", { extrinsic, timeoutMs: 20_000 }));
  await call("account", { address: alice.address });
  await call("dev_produceBlocks", { count: 1 });
  const [first, second] = await Promise.all(both);
  assert.ok(first?.result);
  assert.deepEqual(first, second);
  assert.deepEqual(await call("author_submitAndWait", { extrinsic, timeoutMs: 1 }), first);

  const forged = { ...extrinsic, nonce: 1 };
  const refused = await call("author_submitAndWait", { extrinsic: forged });
  assert.equal(refused.error?.code, 1010);
  assert.deepEqual(refused.error?.data, { invalid: "badProof" });
  const reused = signExtrinsic(
    { ...options, call: { ...options.call, args: { ...options.call.args, amountRao: "9" } } },
    alice,
  );
  const stale = await call("author_submitAndWait", { extrinsic: reused });
  assert.deepEqual(stale.error?.data, { invalid: "stale" });
});

test("a wait ends when its block comes or its time is over", async () => {
  const head = ((await call("chain_head")).result as { number: number }).number;
  const over = await call("chain_waitForBlock", { block: head + 5, timeoutMs: 1 });
  assert.equal((over.result as { number: number }).number, head);
  const waiting = call("chain_waitForBlock", { block: head + 5, timeoutMs: 20_000 });
  await call("dev_produceBlocks", { count: 5 });
  assert.equal(((await waiting).result as { number: number }).number, head + 5);
});
