import { strict as assert } from "node:assert";
import { test } from "node:test";
import { weightsCommitHash } from "./commit-reveal.ts";
import type { Hyperparameters } from "./hyperparameters.ts";
import { TEST_NETUID as netuid, TestChain, tao, testGenesis, testKey } from "./testing.ts";

const alice = testKey("alice");
const validator = testKey("validator");
const TEMPO = 20;

function chainWith(rules: Partial<Hyperparameters> = {}): TestChain {
  const chain = new TestChain(
    testGenesis({ tempo: TEMPO, weightsRateLimitBlocks: 0, commitRevealEnabled: true, ...rules }),
  );
  for (const hotkey of [validator, testKey("miner")]) {
    chain.call(alice, { name: "burnedRegister", args: { netuid, hotkey: hotkey.address } });
  }
  const stake = { netuid, hotkey: validator.address, amountRao: String(tao(1000)) };
  chain.call(alice, { name: "addStake", args: stake });
  toEpoch(chain, 1);
  return chain;
}

function toEpoch(chain: TestChain, epoch: number): void {
  while (chain.state.subnets.get(netuid)!.epochIndex < epoch) chain.block();
}

const revealed = { netuid, uids: [1], values: [9], salt: [1, 2], versionKey: 0 };

function commit(chain: TestChain, salt = revealed.salt): string | undefined {
  const commitHash = weightsCommitHash(validator.address, { ...revealed, salt });
  return chain.call(validator, { name: "commitWeights", args: { netuid, commitHash } });
}

function reveal(chain: TestChain, salt = revealed.salt): string | undefined {
  return chain.call(validator, { name: "revealWeights", args: { ...revealed, salt } });
}

function weightsOf(chain: TestChain) {
  return chain.state.subnets.get(netuid)!.neurons[0]!.weights;
}

test("the hash is blake2-256 of the SCALE tuple", () => {
  // Computed with another library from the same bytes: AccountId32, u16, three Vec<u16>, u64.
  const hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
  const args = { netuid: 1, uids: [0, 1, 300], values: [10, 20, 65_535], salt: [7], versionKey: 9 };
  assert.equal(
    weightsCommitHash(hotkey, args),
    "61b6746e7f886fb6ff2c45409d67236be61b3c1fc66715b3828d6cf670b46f85",
  );
});

test("a reveal counts in exactly one epoch: early, expired, in time", () => {
  const chain = chainWith();
  assert.equal(reveal(chain), "NoWeightsCommitFound");
  assert.equal(commit(chain), undefined);
  assert.equal(reveal(chain), "RevealTooEarly");
  toEpoch(chain, 2);
  assert.equal(reveal(chain, [8]), "InvalidRevealCommitHashNotMatch");
  assert.equal(reveal(chain), undefined);
  assert.deepEqual(weightsOf(chain), [[1, 65_535]]);
  assert.equal(reveal(chain), "NoWeightsCommitFound");
  assert.equal(commit(chain), undefined);
  toEpoch(chain, 4);
  assert.equal(reveal(chain), "ExpiredWeightCommit");
});

test("a longer period moves the window", () => {
  const chain = chainWith({ revealPeriodEpochs: 2 });
  commit(chain);
  toEpoch(chain, 2);
  assert.equal(reveal(chain), "RevealTooEarly");
  toEpoch(chain, 3);
  assert.equal(reveal(chain), undefined);
});

test("a hotkey has at most ten unrevealed commitments; a reveal voids the older ones", () => {
  const chain = chainWith({ tempo: 40 });
  for (let salt = 0; salt < 10; salt++) assert.equal(commit(chain, [salt]), undefined);
  assert.equal(commit(chain, [10]), "TooManyUnrevealedCommits");
  toEpoch(chain, 2);
  assert.equal(reveal(chain, [5]), undefined);
  assert.equal(reveal(chain, [4]), "InvalidRevealCommitHashNotMatch");
  assert.equal(reveal(chain, [6]), undefined);
});

test("committing is limited by the weights rate limit and needs commit-reveal", () => {
  const chain = chainWith({ weightsRateLimitBlocks: 5 });
  chain.blocks(5);
  assert.equal(commit(chain), undefined);
  assert.equal(commit(chain, [3]), "CommittingWeightsTooFast");
  const plain = chainWith({ commitRevealEnabled: false });
  assert.equal(commit(plain), "CommitRevealDisabled");
  assert.equal(reveal(plain), "CommitRevealDisabled");
});

test("timelocked weights set themselves when epoch and round have come", () => {
  const chain = chainWith();
  const timelock = (revealRound: number, commitRevealVersion = 4) =>
    chain.call(validator, {
      name: "commitTimelockedWeights",
      args: { netuid, uids: [1], values: [9], versionKey: 0, revealRound, commitRevealVersion },
    });
  assert.equal(timelock(1_000, 3), "IncorrectCommitRevealVersion");
  assert.equal(timelock(1), "InvalidRevealRound");
  // Rounds last 3000 ms, blocks 250 ms: this round begins some blocks into epoch 2.
  const nextEpoch = chain.state.subnets.get(netuid)!.lastEpochBlock + TEMPO;
  const revealRound = Math.floor(((nextEpoch + 6) * 250) / 3000) + 1;
  assert.equal(timelock(revealRound), undefined);
  assert.equal(timelock(1_000_000), undefined);
  toEpoch(chain, 2);
  assert.deepEqual(weightsOf(chain), []);
  chain.blocks(12);
  assert.deepEqual(weightsOf(chain), [[1, 65_535]]);
  assert.equal(chain.state.subnets.get(netuid)!.timelockedCommits.length, 1);
  toEpoch(chain, 3);
  chain.block();
  assert.equal(chain.state.subnets.get(netuid)!.timelockedCommits.length, 0, "dropped when over");
});
