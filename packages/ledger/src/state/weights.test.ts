import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Hyperparameters } from "./hyperparameters.ts";
import { TEST_NETUID as netuid, TestChain, tao, testGenesis, testKey } from "./testing.ts";
import { maxUpscale } from "./weights.ts";

const alice = testKey("alice");
const validator = testKey("validator");
const miner = testKey("miner");
const VALIDATOR_UID = 0;

/** A validator with permit (uid 0) and two miners (1, 2). */
function chainWith(rules: Partial<Hyperparameters> = {}): TestChain {
  const chain = new TestChain(testGenesis({ tempo: 10, weightsRateLimitBlocks: 3, ...rules }));
  for (const hotkey of [validator, miner, testKey("miner2")]) {
    chain.call(alice, { name: "burnedRegister", args: { netuid, hotkey: hotkey.address } });
  }
  const stake = { netuid, hotkey: validator.address, amountRao: String(tao(1000)) };
  assert.equal(chain.call(alice, { name: "addStake", args: stake }), undefined);
  chain.blocks(20);
  assert.equal(chain.state.subnets.get(netuid)!.neurons[0]!.validatorPermit, true);
  return chain;
}

function set(
  chain: TestChain,
  change: { netuid?: number; uids?: number[]; weights?: number[]; versionKey?: number } = {},
  signer = validator,
): string | undefined {
  const args = { netuid, uids: [1, 2], weights: [10, 20], versionKey: 0, ...change };
  return chain.call(signer, { name: "setWeights", args });
}

test("weights are stored upscaled, halves rounded away from zero", () => {
  const chain = chainWith();
  assert.equal(set(chain), undefined);
  const neuron = chain.state.subnets.get(netuid)!.neurons[VALIDATOR_UID]!;
  assert.deepEqual(neuron.weights, [
    [1, 32_768],
    [2, 65_535],
  ]);
  assert.equal(neuron.lastUpdateBlock, chain.state.head.number);
  assert.deepEqual(maxUpscale([1, 65_535]), [1, 65_535]);
  assert.deepEqual(maxUpscale([0, 0]), [0, 0]);
  assert.deepEqual(maxUpscale([0, 3]), [0, 65_535]);
});

test("each check has its name", () => {
  const rules = { stakeThresholdRao: tao(10), weightsVersionKey: 5, minAllowedWeights: 2 };
  const chain = chainWith(rules);
  const ok = { versionKey: 5 };
  assert.equal(set(chain, { ...ok, netuid: 0 }), "CanNotSetRootNetworkWeights");
  assert.equal(set(chain, { ...ok, weights: [1] }), "WeightVecNotEqualSize");
  assert.equal(set(chain, { ...ok, netuid: 9 }), "SubnetNotExists");
  const four = { uids: [0, 1, 2, 3], weights: [1, 1, 1, 1] };
  assert.equal(set(chain, { ...ok, ...four }), "UidsLengthExceedUidsInSubNet");
  assert.equal(set(chain, ok, testKey("nobody")), "HotKeyNotRegisteredInSubNet");
  assert.equal(set(chain, ok, miner), "NotEnoughStakeToSetWeights");
  assert.equal(set(chain, { versionKey: 4 }), "IncorrectWeightVersionKey");
  assert.equal(set(chain, { ...ok, uids: [1, 1] }), "DuplicateUids");
  assert.equal(set(chain, { ...ok, uids: [1, 3] }), "UidVecContainInvalidOne");
  assert.equal(set(chain, { ...ok, uids: [1], weights: [1] }), "WeightVecLengthIsLow");
  assert.equal(set(chain, ok), undefined);
  assert.equal(set(chain, ok), "SettingWeightsTooFast");
  chain.blocks(3);
  assert.equal(set(chain, ok), undefined);
});

test("the first failing check of the documented order names the error", () => {
  const chain = chainWith({ weightsVersionKey: 5 });
  // Everything is wrong with these; each repair reveals the next check in order.
  const wrong = { netuid: 0, uids: [1, 1, 9, 9], weights: [1], versionKey: 0 };
  assert.equal(set(chain, wrong, testKey("nobody")), "CanNotSetRootNetworkWeights");
  assert.equal(set(chain, { ...wrong, netuid: 99 }, testKey("nobody")), "WeightVecNotEqualSize");
  const even = { ...wrong, weights: [1, 1, 1, 1] };
  assert.equal(set(chain, { ...even, netuid: 99 }, testKey("nobody")), "SubnetNotExists");
  assert.equal(set(chain, { ...even, netuid }, testKey("nobody")), "UidsLengthExceedUidsInSubNet");
  const three = { uids: [1, 1, 9], weights: [1, 1, 1], versionKey: 0 };
  assert.equal(set(chain, three, testKey("nobody")), "HotKeyNotRegisteredInSubNet");
  assert.equal(set(chain, three, miner), "IncorrectWeightVersionKey");
  assert.equal(set(chain, { ...three, versionKey: 5 }, miner), "NeuronNoValidatorPermit");
  assert.equal(set(chain, { ...three, versionKey: 5 }), "DuplicateUids");
});

test("without a permit only oneself may be named, and minimum and limit do not apply", () => {
  const chain = chainWith({ minAllowedWeights: 3, maxWeightsLimit: 100 });
  assert.equal(set(chain, { uids: [1], weights: [5] }, miner), undefined);
  chain.blocks(3);
  assert.equal(set(chain, { uids: [2], weights: [5] }, miner), "NeuronNoValidatorPermit");
});

test("no weight may be larger than its limit", () => {
  const chain = chainWith({ maxWeightsLimit: 32_768 });
  assert.equal(set(chain, { uids: [1, 2], weights: [1, 3] }), "MaxWeightExceeded");
  assert.equal(set(chain, { uids: [1, 2], weights: [2, 2] }), undefined);
});

test("commit-reveal forbids plain weights before anything else is checked", () => {
  const chain = chainWith({ commitRevealEnabled: true });
  assert.equal(set(chain, { weights: [1] }), "CommitRevealEnabled");
});
