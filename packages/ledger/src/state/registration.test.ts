import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Hyperparameters } from "./hyperparameters.ts";
import { TEST_NETUID as netuid, TestChain, tao, testGenesis, testKey } from "./testing.ts";

const alice = testKey("alice");

function chainWith(rules: Partial<Hyperparameters> = {}): TestChain {
  return new TestChain(testGenesis(rules));
}

function register(chain: TestChain, name: string, coldkey = alice): string | undefined {
  const args = { netuid, hotkey: testKey(name).address };
  return chain.call(coldkey, { name: "burnedRegister", args });
}

function subnetOf(chain: TestChain) {
  return chain.state.subnets.get(netuid)!;
}

test("the price is paid by the coldkey, recycled, and multiplied", () => {
  const chain = chainWith({ burnMultiplierMillionths: 1_260_000 });
  const before = chain.state.accounts.get(alice.address)!.balanceRao;
  assert.equal(register(chain, "h1"), undefined);
  const priceRao = before - chain.state.accounts.get(alice.address)!.balanceRao;
  assert.equal(chain.state.issuance.recycledRao, priceRao);
  assert.equal(subnetOf(chain).burnRao, (priceRao * 126n) / 100n);
});

test("the price halves within its half-life and never leaves its bounds", () => {
  const rules = { initialBurnRao: tao(1), burnHalfLifeBlocks: 100, minBurnRao: tao(1) / 5n };
  const chain = chainWith(rules);
  chain.blocks(100);
  const half = Number(subnetOf(chain).burnRao) / Number(tao(1));
  assert.ok(Math.abs(half - 0.5) < 1e-6, `price is ${half} of the first`);
  chain.blocks(300);
  assert.equal(subnetOf(chain).burnRao, rules.minBurnRao);
  const high = chainWith({ initialBurnRao: tao(99), maxBurnRao: tao(100) });
  register(high, "h1");
  register(high, "h2");
  register(high, "h3");
  assert.ok(subnetOf(high).burnRao <= tao(100));
});

test("refusals change nothing but the nonce", () => {
  const chain = chainWith({ maxRegistrationsPerBlock: 2 });
  register(chain, "h1");
  const before = subnetOf(chain).neurons.length;
  assert.equal(register(chain, "h1"), "HotKeyAlreadyRegisteredInSubNet");
  assert.equal(register(chain, "h2", testKey("poor")), "NotEnoughBalanceToStake");
  const unknown = { netuid: 99, hotkey: testKey("h2").address };
  assert.equal(chain.call(alice, { name: "burnedRegister", args: unknown }), "SubnetNotExists");
  assert.equal(subnetOf(chain).neurons.length, before);
  assert.equal(chain.state.accounts.get(alice.address)!.nonce, 3);
});

test("a hotkey belongs to the coldkey that registered it first", () => {
  const chain = new TestChain({
    ...testGenesis(),
    subnets: [7, 8].map((id) => ({ netuid: id, owner: testKey("owner").address })),
  });
  register(chain, "h1");
  const args = { netuid: 8, hotkey: testKey("h1").address };
  const call = { name: "burnedRegister", args } as const;
  assert.equal(chain.call(testKey("bob"), call), "NonAssociatedColdKey");
  assert.equal(chain.call(alice, call), undefined);
});

test("a block takes only so many registrations", () => {
  const chain = chainWith({ maxRegistrationsPerBlock: 2 });
  const calls = ["h1", "h2", "h3"].map((name, ahead) =>
    chain.sign(
      alice,
      { name: "burnedRegister", args: { netuid, hotkey: testKey(name).address } },
      ahead,
    ),
  );
  const errors = chain.block(calls).receipts.map(({ error }) => error);
  assert.deepEqual(errors, [undefined, undefined, "TooManyRegistrationsThisBlock"]);
});

test("a full subnet replaces the weakest neuron outside immunity, the earlier among equals", () => {
  const chain = chainWith({ maxUids: 3, immunityPeriodBlocks: 5 });
  for (const name of ["h0", "h1", "h2"]) register(chain, name);
  assert.equal(register(chain, "h3"), "NoNeuronIdAvailable");
  chain.blocks(5);
  const subnet = subnetOf(chain);
  subnet.neurons[0]!.emissionRao = 5n;
  subnet.neurons[1]!.emissionRao = 1n;
  subnet.neurons[2]!.emissionRao = 1n;
  subnet.neurons[1]!.weights = [[0, 9]];
  subnet.neurons[1]!.bonds = [[0, 9]];
  assert.equal(register(chain, "h3"), undefined);
  const replaced = subnetOf(chain).neurons[1]!;
  assert.equal(replaced.hotkey, testKey("h3").address);
  assert.deepEqual([replaced.weights, replaced.bonds, replaced.endpoint], [[], [], undefined]);
  assert.equal(replaced.registeredAtBlock, chain.state.head.number);
  assert.equal(replaced.lastUpdateBlock, chain.state.head.number);
  assert.equal(subnetOf(chain).uids.has(testKey("h1").address), false);
});

test("the owner's hotkey is never replaced", () => {
  const chain = chainWith({ maxUids: 1, immunityPeriodBlocks: 0 });
  assert.equal(register(chain, "owner-hotkey", testKey("owner")), undefined);
  chain.blocks(3);
  assert.equal(register(chain, "h1"), "NoNeuronIdAvailable");
});

test("closed registration takes nobody", () => {
  const chain = chainWith({ registrationAllowed: false });
  assert.equal(register(chain, "h1"), "SubNetRegistrationDisabled");
});
