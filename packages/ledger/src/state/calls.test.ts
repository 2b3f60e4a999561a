import { strict as assert } from "node:assert";
import { test } from "node:test";
import { toHex } from "@covenant/contracts";
import type { Call } from "./calls.ts";
import { canonicalJson, fromCanonicalJson } from "./canonical-json.ts";
import { InvalidExtrinsicError } from "./errors.ts";
import { checkPlace, checkSignature, extrinsicHash, parseExtrinsic } from "./extrinsic.ts";
import { genesisSchema, genesisState } from "./genesis.ts";
import type { Hyperparameters } from "./hyperparameters.ts";
import { TEST_NETUID as netuid, TestChain, tao, testGenesis, testKey } from "./testing.ts";

const alice = testKey("alice");
const hotkey = testKey("h1");
const owner = testKey("owner");
const sudo = testKey("sudo");

function chainWith(rules: Partial<Hyperparameters> = {}): TestChain {
  const chain = new TestChain(testGenesis(rules));
  chain.call(alice, { name: "burnedRegister", args: { netuid, hotkey: hotkey.address } });
  return chain;
}

function invalid(reason: string): (error: unknown) => boolean {
  return (error) => error instanceof InvalidExtrinsicError && error.reason === reason;
}

const someCall: Call = { name: "transfer", args: { destination: hotkey.address, amountRao: "5" } };

test("a signature binds signer, call, nonce, life span and chain", () => {
  const chain = chainWith();
  const signed = chain.sign(alice, someCall);
  const { genesisHash } = chain.state;
  checkSignature(signed, genesisHash);
  const changed = { ...someCall, args: { ...someCall.args, amountRao: "6" } } as Call;
  for (const forged of [
    { ...signed, call: changed },
    { ...signed, nonce: signed.nonce + 1 },
    { ...signed, periodBlocks: 63 },
    { ...signed, salt: "11".repeat(8) },
    { ...signed, birthBlock: signed.birthBlock + 1 },
    { ...signed, signer: hotkey.address },
    { ...signed, signer: "nobody" },
  ]) {
    assert.throws(() => checkSignature(forged, genesisHash), invalid("badProof"));
  }
  const other = genesisState(genesisSchema.parse({ ...testGenesis(), name: "other" }));
  assert.throws(() => checkSignature(signed, other.genesisHash), invalid("badProof"));
});

test("a nonce is used once and in order, by failing calls too", () => {
  const chain = chainWith();
  const signed = chain.sign(alice, someCall);
  chain.block([signed]);
  assert.throws(() => checkPlace(chain.state, signed), invalid("stale"));
  assert.throws(() => chain.block([signed]), invalid("stale"));
  assert.throws(() => checkPlace(chain.state, chain.sign(alice, someCall, 1)), invalid("future"));
});

test("an extrinsic lives as many blocks as it says", () => {
  const chain = chainWith();
  const signed = { ...chain.sign(alice, someCall), periodBlocks: 3 };
  chain.blocks(2);
  checkPlace(chain.state, signed);
  chain.block();
  assert.throws(() => checkPlace(chain.state, signed), invalid("ancientBirthBlock"));
  const unborn = { ...signed, birthBlock: chain.state.head.number + 1 };
  assert.throws(() => checkPlace(chain.state, unborn), invalid("ancientBirthBlock"));
});

test("the parser takes nothing that is not a call", () => {
  const signed = chainWith().sign(alice, someCall);
  assert.deepEqual(parseExtrinsic(JSON.parse(JSON.stringify(signed))), signed);
  for (const garbage of [
    null,
    [],
    "x",
    {},
    { ...signed, extra: 1 },
    { ...signed, nonce: -1 },
    { ...signed, nonce: 1.5 },
    { ...signed, signature: "zz" },
    { ...signed, call: { name: "nonsense", args: {} } },
    { ...signed, call: { ...someCall, args: { ...someCall.args, amountRao: "-5" } } },
    { ...signed, call: { name: "setCommitment", args: { netuid, fields: ["0"] } } },
    { ...signed, call: { name: "setCommitment", args: { netuid, fields: ["00".repeat(129)] } } },
    { ...signed, call: { name: "setHyperparameters", args: { netuid, changes: { odd: 1 } } } },
  ]) {
    assert.throws(() => parseExtrinsic(garbage), invalid("call"), JSON.stringify(garbage));
  }
});

test("the same call signed twice is one extrinsic", () => {
  const chain = chainWith();
  const signed = chain.sign(alice, someCall);
  assert.equal(extrinsicHash({ ...signed, signature: "00".repeat(64) }), extrinsicHash(signed));
  assert.notEqual(extrinsicHash({ ...signed, nonce: 9 }), extrinsicHash(signed));
  assert.notEqual(extrinsicHash({ ...signed, salt: "11".repeat(8) }), extrinsicHash(signed));
});

test("canonical JSON sorts, keeps bigints and maps, and comes back", () => {
  const value = {
    b: 1n,
    a: new Map([
      ["z", [1]],
      ["y", [2n]],
    ] as [string, unknown][]),
    c: [true],
  };
  const text = canonicalJson(value);
  assert.equal(text, '{"a":{"$map":[["y",[{"$big":"2"}]],["z",[1]]]},"b":{"$big":"1"},"c":[true]}');
  assert.equal(canonicalJson(fromCanonicalJson(text)), text);
  assert.throws(() => canonicalJson(Number.NaN), RangeError);
});

test("a commitment costs space, at least the minimum, until the next epoch", () => {
  const chain = chainWith({ tempo: 20, commitmentMaxSpaceBytes: 350, commitmentMinCostBytes: 100 });
  const commit = (...fields: Uint8Array[]) =>
    chain.call(hotkey, { name: "setCommitment", args: { netuid, fields: fields.map(toHex) } });
  assert.equal(commit(new Uint8Array(1)), undefined);
  assert.equal(commit(new Uint8Array(100), new Uint8Array(50)), undefined);
  assert.equal(commit(new Uint8Array(101)), "SpaceLimitExceeded");
  assert.equal(commit(new Uint8Array(1)), undefined);
  assert.equal(commit(), "SpaceLimitExceeded");
  const found = chain.state.subnets.get(netuid)!.commitments.get(hotkey.address)!;
  assert.deepEqual(found.fields, ["00"]);
  chain.blocks(20);
  assert.equal(commit(new Uint8Array(128), new Uint8Array(128)), undefined);
});

test("endpoints are IP literals with a port, at most one per rate limit", () => {
  const chain = chainWith({ servingRateLimitBlocks: 3, allowLoopbackEndpoints: false });
  const serve = (host: string, port = 1, signer = hotkey) =>
    chain.call(signer, {
      name: "serveAxon",
      args: { netuid, version: 1, host, port, protocol: 1 },
    });
  for (const host of ["example.org", "0.0.0.0", "127.0.0.1", "::1", "::", "fe80::1%eth0", "1.2"]) {
    assert.equal(serve(host), "InvalidIpAddress", host);
  }
  assert.equal(serve("10.0.0.1", 0), "InvalidPort");
  assert.equal(serve("10.0.0.1", 1, testKey("stranger")), "HotKeyNotRegisteredInSubNet");
  assert.equal(serve("10.0.0.1"), undefined);
  assert.equal(serve("10.0.0.2"), "ServingRateLimitExceeded");
  chain.blocks(2);
  assert.equal(serve("2001:db8::1", 65_535), undefined);
});

test("balances stay above the existential deposit", () => {
  const chain = chainWith();
  const balanceRao = chain.state.accounts.get(owner.address)!.balanceRao;
  const transfer = (amountRao: bigint) =>
    chain.call(owner, {
      name: "transfer",
      args: { destination: hotkey.address, amountRao: String(amountRao) },
    });
  assert.equal(transfer(balanceRao - 499n), "NotEnoughBalanceToStake");
  assert.equal(transfer(0n), "InvalidValue");
  assert.equal(transfer(balanceRao - 500n), undefined);
  assert.equal(chain.state.accounts.get(owner.address)!.balanceRao, 500n);
});

test("owner calls keep out of the freeze window and within their bounds; sudo does not", () => {
  const chain = chainWith({ tempo: 20, adminFreezeWindowBlocks: 5 });
  const tempo = (signer: typeof owner, value: number) =>
    chain.call(signer, { name: "setTempo", args: { netuid, tempo: value } });
  assert.equal(tempo(alice, 400), "BadOrigin");
  assert.equal(tempo(owner, 359), "TempoOutOfBounds");
  chain.blocks(13);
  assert.equal(tempo(owner, 400), "AdminActionProhibitedDuringWeightsWindow");
  assert.equal(tempo(sudo, 30), undefined);
  assert.equal(tempo(owner, 360), undefined);
  const set = (signer: typeof owner, changes: Record<string, number | string>) =>
    chain.call(signer, { name: "setHyperparameters", args: { netuid, changes } });
  assert.equal(set(owner, { kappa: 1 }), undefined);
  assert.equal(set(owner, { emissionPerBlockRao: String(tao(9)) }), "BadOrigin");
  assert.equal(set(owner, { minBurnRao: String(tao(101)) }), "InvalidValue");
  assert.equal(chain.state.subnets.get(netuid)!.hyperparameters.kappa, 1);
});

test("a triggered epoch runs after the freeze window, once", () => {
  const chain = chainWith({ tempo: 1000, adminFreezeWindowBlocks: 4 });
  assert.equal(chain.call(owner, { name: "triggerEpoch", args: { netuid } }), undefined);
  const subnet = () => chain.state.subnets.get(netuid)!;
  chain.blocks(3);
  assert.equal(subnet().epochIndex, 0);
  chain.block();
  assert.equal(subnet().epochIndex, 1);
  chain.blocks(20);
  assert.equal(subnet().epochIndex, 1);
});

test("genesis reads TAO exactly and refuses nonsense", () => {
  const parse = (balance: unknown) =>
    genesisSchema.parse({ balances: { [alice.address]: balance } }).balances[alice.address];
  assert.equal(parse(1.5), 1_500_000_000n);
  assert.equal(parse("20999999.999999999"), 20_999_999_999_999_999n);
  assert.throws(() => parse(-1));
  assert.throws(() => parse("1e5"));
  assert.throws(() => genesisSchema.parse({ balances: { nobody: 1 } }));
  const twice = genesisSchema.parse({
    subnets: [1, 1].map((id) => ({ netuid: id, owner: owner.address })),
  });
  assert.throws(() => genesisState(twice), RangeError);
});
