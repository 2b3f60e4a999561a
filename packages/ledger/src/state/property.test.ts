import { strict as assert } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { applyBlock } from "./apply.ts";
import type { Call } from "./calls.ts";
import { weightsCommitHash } from "./commit-reveal.ts";
import type { Extrinsic } from "./extrinsic.ts";
import { genesisSchema, genesisState } from "./genesis.ts";
import { findViolation, stateHash } from "./invariants.ts";
import { TEST_NETUID as netuid, testGenesis, testKey } from "./testing.ts";
import type { ChainState } from "./types.ts";

const SIGNERS = ["alice", "alice", "alice", "bob", "owner", "sudo", "h0", "h0", "h1", "h2"];
const [plainGenesis, commitRevealGenesis] = [false, true].map((commitRevealEnabled) =>
  genesisSchema.parse(
    testGenesis({
      tempo: 5,
      maxUids: 3,
      immunityPeriodBlocks: 3,
      weightsRateLimitBlocks: 1,
      commitRevealEnabled,
    }),
  ),
);

const hotkey = fc
  .constantFrom("h0", "h1", "h2", "h3", "owner-hotkey")
  .map((n) => testKey(n).address);
const amountRao = fc
  .oneof(fc.bigInt({ min: 0n, max: 1000n }), fc.bigInt({ min: 0n, max: 2n * 10n ** 15n }))
  .map(String);
const u16 = fc.integer({ min: 0, max: 65_535 });
const small = fc.array(u16, { maxLength: 4 });
/** Mostly vectors that a validator may set, sometimes ones that nobody may. */
const vector = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(u16, u16).map((values) => ({ uids: [0, 1], values })) },
  {
    weight: 1,
    arbitrary: fc.record({
      uids: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 4 }),
      values: small,
    }),
  },
);

/** Calls that can succeed as well as calls that cannot. */
const call: fc.Arbitrary<Call> = fc.oneof(
  hotkey.map((key): Call => ({ name: "burnedRegister", args: { netuid, hotkey: key } })),
  fc
    .record({ netuid: fc.constant(netuid), hotkey, amountRao })
    .chain((args) =>
      fc.constantFrom<Call[]>({ name: "addStake", args }, { name: "removeStake", args }),
    ),
  fc.record({ destination: hotkey, amountRao }).map((args): Call => ({ name: "transfer", args })),
  vector.map(
    ({ uids, values }): Call => ({
      name: "setWeights",
      args: { netuid, uids, weights: values, versionKey: 0 },
    }),
  ),
  fc
    .record({ vector, salt: small, signer: fc.constantFrom("h0", "h1", "h2") })
    .chain(({ signer, salt, vector: { uids, values } }) => {
      const args = { netuid, uids, values, salt, versionKey: 0 };
      const commitHash = weightsCommitHash(testKey(signer).address, args);
      return fc.constantFrom<Call[]>(
        { name: "commitWeights", args: { netuid, commitHash } },
        { name: "revealWeights", args },
      );
    }),
  fc
    .array(fc.constantFrom("", "00ff", "aa".repeat(128)), { maxLength: 4 })
    .map((fields): Call => ({ name: "setCommitment", args: { netuid, fields } })),
  fc
    .boolean()
    .map((enabled): Call => ({ name: "sudoSetSubtokenEnabled", args: { netuid, enabled } })),
  fc.boolean().map(
    (commitRevealEnabled): Call => ({
      name: "setHyperparameters",
      args: { netuid, changes: { commitRevealEnabled } },
    }),
  ),
  fc.constant<Call>({ name: "triggerEpoch", args: { netuid } }),
);

const blocks = fc.array(
  fc.array(fc.record({ signer: fc.constantFrom(...SIGNERS), call }), { maxLength: 4 }),
  { maxLength: 40 },
);

type PlannedBlock = { signer: string; call: Call }[];

/** A beginning after which most calls can succeed: h0 is a staked validator, h1 a miner. */
const OPENING: PlannedBlock[] = [
  ["h0", "h1"].map((name) => ({
    signer: "alice",
    call: { name: "burnedRegister", args: { netuid, hotkey: testKey(name).address } },
  })),
  [
    {
      signer: "alice",
      call: {
        name: "addStake",
        args: { netuid, hotkey: testKey("h0").address, amountRao: "1000000" },
      },
    },
  ],
  ...Array.from({ length: 6 }, () => []),
];

/** Extrinsics with right nonces; signatures play no part in applying a block. */
function extrinsicsOf(state: ChainState, planned: PlannedBlock): Extrinsic[] {
  const nonces = new Map<string, number>();
  return planned.map(({ signer, call: planning }) => {
    const { address } = testKey(signer);
    const nonce = nonces.get(address) ?? state.accounts.get(address)?.nonce ?? 0;
    nonces.set(address, nonce + 1);
    return {
      signer: address,
      nonce,
      birthBlock: state.head.number,
      periodBlocks: 8,
      salt: "00".repeat(8),
      call: planning,
      signature: "00".repeat(64),
    };
  });
}

test("whatever is sent: rao is conserved, nothing is negative, a replay is equal", () => {
  const outcomes = new Map<string, number>();
  fc.assert(
    fc.property(fc.boolean(), blocks, (commitReveal, plan) => {
      const genesis = commitReveal ? commitRevealGenesis! : plainGenesis!;
      let state = genesisState(genesis);
      const inputs = [];
      for (const planned of [...OPENING, ...plan]) {
        const extrinsics = extrinsicsOf(state, planned);
        const input = { timeMs: state.head.timeMs + 250, entropy: "ab".repeat(32), extrinsics };
        const before = stateHash(state);
        const applied = applyBlock(state, input);
        assert.equal(stateHash(state), before, "the given state is not changed");
        state = applied.state;
        inputs.push(input);
        assert.equal(findViolation(state), undefined);
        for (const [index, receipt] of applied.receipts.entries()) {
          const outcome = `${extrinsics[index]!.call.name}: ${receipt.error ?? "done"}`;
          outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        }
        for (const event of applied.events.filter(({ name }) => name === "EpochRun")) {
          const { poolRao, minersRao, validatorsRao, withheldRao, carriedRao } =
            event.data as Record<string, bigint>;
          assert.equal(minersRao! + validatorsRao! + withheldRao! + carriedRao!, poolRao);
        }
      }
      let again = genesisState(genesis);
      for (const input of inputs) again = applyBlock(again, input).state;
      assert.equal(stateHash(again), stateHash(state));
    }),
    { numRuns: 150 },
  );
  // The sequences must reach what they are meant to test.
  const reached = ["removeStake", "setCommitment", "setWeights", "commitWeights", "transfer"];
  for (const name of reached) {
    assert.ok((outcomes.get(`${name}: done`) ?? 0) > 0, `${name} never succeeded`);
  }
});
