import { strict as assert } from "node:assert";
import { test } from "node:test";
import { stakeOfHotkey } from "./context.ts";
import type { Hyperparameters } from "./hyperparameters.ts";
import { findViolation } from "./invariants.ts";
import { TEST_NETUID as netuid, TestChain, tao, testGenesis, testKey } from "./testing.ts";

const alice = testKey("alice");
const bob = testKey("bob");
const sudo = testKey("sudo");
const owner = testKey("owner");
const validator = testKey("validator");
const miner = testKey("miner");

/** A staked validator that weights one miner, at the end of an epoch. */
function payingChain(minerColdkey = bob, rules: Partial<Hyperparameters> = {}): TestChain {
  const chain = new TestChain(testGenesis({ tempo: 10, weightsRateLimitBlocks: 0, ...rules }));
  const register = { netuid, hotkey: validator.address };
  chain.call(alice, { name: "burnedRegister", args: register });
  const registerMiner = { netuid, hotkey: miner.address };
  chain.call(minerColdkey, { name: "burnedRegister", args: registerMiner });
  const stake = { netuid, hotkey: validator.address, amountRao: String(tao(500)) };
  chain.call(alice, { name: "addStake", args: stake });
  chain.blocks(12);
  const weights = { netuid, uids: [1], weights: [1], versionKey: 0 };
  assert.equal(chain.call(validator, { name: "setWeights", args: weights }), undefined);
  return chain;
}

/** Makes blocks until the next epoch; returns its event. */
function nextEpoch(chain: TestChain): { [key: string]: bigint } {
  for (;;) {
    const found = chain.block().events.find(({ name }) => name === "EpochRun");
    if (found !== undefined) return found.data as { [key: string]: bigint };
  }
}

test("a block emits the owner's cut and two equal halves", () => {
  const chain = new TestChain(testGenesis({ tempo: 1000 }));
  chain.blocks(3);
  const subnet = chain.state.subnets.get(netuid)!;
  assert.equal(chain.state.issuance.emittedRao, tao(3));
  assert.equal(subnet.pendingOwnerRao, ((tao(1) * 11_796n) / 65_535n) * 3n);
  assert.equal(
    subnet.pendingOwnerRao + subnet.pendingServerRao + subnet.pendingValidatorRao,
    tao(3),
  );
  const difference = subnet.pendingValidatorRao - subnet.pendingServerRao;
  assert.ok(difference >= 0n && difference <= 3n);
});

test("an epoch pays its pool exactly: miners, validators, withheld and carried", () => {
  const chain = payingChain();
  nextEpoch(chain);
  for (let epoch = 0; epoch < 5; epoch++) {
    const paid = nextEpoch(chain);
    const { poolRao, minersRao, validatorsRao, withheldRao, carriedRao } = paid;
    assert.equal(minersRao! + validatorsRao! + withheldRao! + carriedRao!, poolRao);
    assert.ok(minersRao! > 0n && validatorsRao! > 0n);
    assert.ok(carriedRao! >= 0n && carriedRao! < 1000n, `${carriedRao} rao carried`);
    assert.equal(findViolation(chain.state), undefined);
  }
  const subnet = chain.state.subnets.get(netuid)!;
  assert.ok(stakeOfHotkey(subnet, miner.address) > 0n);
  assert.ok(stakeOfHotkey(subnet, subnet.ownerHotkey) > 0n);
});

test("nominators share dividends by stake after the take", () => {
  const chain = payingChain(bob, { delegateTake: 0 });
  const stake = { netuid, hotkey: validator.address, amountRao: String(tao(500)) };
  assert.equal(chain.call(owner, { name: "addStake", args: stake }), undefined);
  const before = new Map(chain.state.subnets.get(netuid)!.stakes.get(validator.address));
  nextEpoch(chain);
  const after = chain.state.subnets.get(netuid)!.stakes.get(validator.address)!;
  const gained = (key: string) => after.get(key)! - before.get(key)!;
  const ownRatio = Number(before.get(alice.address)!) / Number(before.get(owner.address)!);
  const paidRatio = Number(gained(alice.address)) / Number(gained(owner.address));
  assert.ok(Math.abs(paidRatio - ownRatio) < 1e-6, `${paidRatio} against ${ownRatio}`);
});

for (const recycle of [false, true]) {
  test(`emission to the owner's miners is ${recycle ? "recycled" : "burned"}`, () => {
    const chain = payingChain(owner, { recycleOwnerEmission: recycle });
    const before = chain.state.issuance;
    const paid = nextEpoch(chain);
    assert.equal(paid.minersRao, 0n);
    assert.ok(paid.withheldRao! > 0n);
    const { recycledRao, burnedRao } = chain.state.issuance;
    assert.equal(recycledRao - before.recycledRao, recycle ? paid.withheldRao : 0n);
    assert.equal(burnedRao - before.burnedRao, recycle ? 0n : paid.withheldRao);
    assert.equal(findViolation(chain.state), undefined);
  });
}

test("without any stake nothing is paid and nothing is lost", () => {
  const chain = new TestChain(testGenesis({ tempo: 10, ownerCut: 0 }));
  const args = { netuid, hotkey: miner.address };
  chain.call(bob, { name: "burnedRegister", args });
  const paid = nextEpoch(chain);
  assert.equal(paid.carriedRao, paid.poolRao);
  assert.equal(findViolation(chain.state), undefined);
});

test("subtoken off pauses emission and staking; on resumes them", () => {
  const chain = payingChain();
  const set = (signer: typeof sudo, enabled: boolean) =>
    chain.call(signer, { name: "sudoSetSubtokenEnabled", args: { netuid, enabled } });
  assert.equal(set(owner, false), "BadOrigin");
  assert.equal(set(sudo, false), undefined);
  const emitted = chain.state.issuance.emittedRao;
  chain.blocks(30);
  assert.equal(chain.state.issuance.emittedRao, emitted);
  const stake = { netuid, hotkey: validator.address, amountRao: "5" };
  assert.equal(chain.call(alice, { name: "addStake", args: stake }), "SubtokenDisabled");
  set(sudo, true);
  chain.block();
  assert.equal(chain.state.issuance.emittedRao, emitted + tao(1));
});

test("the pool-side flag is kept and moves nothing", () => {
  const chain = payingChain();
  const emitted = chain.state.issuance.emittedRao;
  const args = { netuid, enabled: false };
  assert.equal(chain.call(sudo, { name: "sudoSetSubnetEmissionEnabled", args }), undefined);
  assert.equal(chain.state.subnets.get(netuid)!.emissionEnabled, false);
  assert.equal(chain.state.issuance.emittedRao, emitted + tao(1));
});

test("a subnet that waits for its start emits from the block after the start call", () => {
  const genesis = testGenesis({ startCallDelayBlocks: 5 });
  genesis.subnets![0]!.started = false;
  const chain = new TestChain(genesis);
  const start = () => chain.call(owner, { name: "startCall", args: { netuid } });
  assert.equal(start(), "NeedWaitingMoreBlocksToStarCall");
  assert.equal(chain.call(alice, { name: "startCall", args: { netuid } }), "BadOrigin");
  chain.blocks(5);
  assert.equal(start(), undefined);
  assert.equal(chain.state.issuance.emittedRao, 0n);
  chain.block();
  assert.equal(chain.state.issuance.emittedRao, tao(1));
  assert.equal(start(), "FirstEmissionBlockNumberAlreadySet");
});

test("an epoch's cap per block makes the other subnet wait one block", () => {
  const ids = [7, 8, 9];
  const chain = new TestChain({
    ...testGenesis(),
    maxEpochsPerBlock: 2,
    subnets: ids.map((id) => ({ netuid: id, owner: owner.address, hyperparameters: { tempo: 5 } })),
  });
  chain.blocks(5);
  const lastEpochs = () => ids.map((id) => chain.state.subnets.get(id)!.lastEpochBlock);
  assert.deepEqual(lastEpochs(), [5, 5, 0]);
  chain.block();
  assert.deepEqual(lastEpochs(), [5, 5, 6]);
});
