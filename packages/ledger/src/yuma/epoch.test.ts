import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { emissionOf, runEpoch } from "./epoch.ts";
import type { StoredRow, YumaInput, YumaParameters } from "./types.ts";

const PARAMETERS: YumaParameters = {
  yuma3: true,
  liquidAlpha: false,
  alphaLow: 0,
  alphaHigh: 0,
  alphaSigmoidSteepness: 1000,
  bondsMovingAverage: 900_000,
  bondsPenalty: 0,
  kappa: 32_767,
  maxValidators: 64,
  activityCutoffBlocks: 100,
  stakeThresholdRao: 0n,
};

/** Neurons registered long ago with fresh weights; uids with stake have permits. */
function subnet(
  stakes: number[],
  weights: StoredRow[],
  change: Partial<YumaInput> & { rules?: Partial<YumaParameters> } = {},
): YumaInput {
  const { rules, ...rest } = change;
  return {
    block: 1000,
    lastEpochBlock: 990,
    stakesRao: stakes.map((stake) => BigInt(stake)),
    lastUpdateBlocks: stakes.map(() => 999),
    registeredAtBlocks: stakes.map(() => 0),
    validatorPermits: stakes.map((stake) => stake > 0),
    weights,
    bonds: stakes.map(() => []),
    parameters: { ...PARAMETERS, ...rules },
    ...rest,
  };
}

const NOTHING: StoredRow = [];
const ALL = 65_534;

describe("what the vectors do not cover", () => {
  test("stake below the threshold counts as none", () => {
    const weights: StoredRow[] = [[[2, 9]], [[2, 9]], NOTHING];
    const result = runEpoch(subnet([100, 9, 0], weights, { rules: { stakeThresholdRao: 10n } }));
    assert.deepEqual(result.stakeWeight, [65_535, 0, 0]);
    assert.deepEqual(result.validatorPermit, [true, false, false]);
    assert.ok(result.dividends[0]! >= ALL);
    assert.equal(result.dividends[1], 0);
  });

  test("the owner is exempt from the threshold and always permitted", () => {
    const weights: StoredRow[] = [[[2, 9]], [[2, 9]], NOTHING];
    const rules = { stakeThresholdRao: 10n, maxValidators: 1 };
    const result = runEpoch(subnet([100, 9, 0], weights, { rules, ownerUid: 1 }));
    assert.ok(result.stakeWeight[1]! > 0);
    assert.deepEqual(result.validatorPermit, [true, true, false]);
    assert.ok(result.dividends[1]! > 0);
  });

  test("the owner's weights count even when it had no permit", () => {
    const weights: StoredRow[] = [[[1, 9]], NOTHING];
    const permits = { validatorPermits: [false, false] };
    assert.equal(runEpoch(subnet([5, 0], weights, permits)).incentive[1], 0);
    const owned = runEpoch(subnet([5, 0], weights, { ...permits, ownerUid: 0 }));
    assert.ok(owned.incentive[1]! >= ALL);
  });

  test("only the owner may weight itself", () => {
    const weights: StoredRow[] = [[[0, 9]], [[0, 9]], NOTHING];
    const plain = runEpoch(subnet([60, 0, 40], weights));
    assert.equal(plain.incentive[0], 0);
    const owned = runEpoch(subnet([60, 0, 40], weights, { ownerUid: 0 }));
    assert.ok(owned.incentive[0]! >= ALL);
  });

  test("commit-reveal drops weights on neurons younger than the oldest live commitment", () => {
    const weights: StoredRow[] = [
      [
        [1, 9],
        [2, 9],
      ],
      NOTHING,
      NOTHING,
    ];
    const young = { registeredAtBlocks: [0, 0, 500] };
    const plain = runEpoch(subnet([9, 0, 0], weights, young));
    assert.ok(plain.incentive[2]! > 0);
    const masked = runEpoch(
      subnet([9, 0, 0], weights, { ...young, oldestCommitBlocks: [499, undefined, undefined] }),
    );
    assert.equal(masked.incentive[2], 0);
    assert.ok(masked.incentive[1]! >= ALL);
    const same = runEpoch(
      subnet([9, 0, 0], weights, { ...young, oldestCommitBlocks: [500, undefined, undefined] }),
    );
    assert.deepEqual(same.incentive, plain.incentive);
  });

  test("bonds to a neuron that took over a uid since the last epoch are dropped", () => {
    const weights: StoredRow[] = [[[1, 9]], NOTHING];
    const bonds: StoredRow[] = [[[1, 65_535]], NOTHING];
    const bondWith = (registeredAt: number) => {
      const change = { bonds, registeredAtBlocks: [0, registeredAt] };
      return runEpoch(subnet([9, 0], weights, change)).bonds[0]![0]![1];
    };
    assert.ok(bondWith(989)! >= ALL);
    assert.equal(bondWith(990), 6553, "only the new tenth");
  });

  test("a lost permit clears the bonds, a missing one leaves them as they are", () => {
    const bonds: StoredRow[] = [[[2, 7]], [[2, 8]], NOTHING];
    const result = runEpoch(
      subnet([9, 1, 0], [NOTHING, NOTHING, NOTHING], {
        bonds,
        validatorPermits: [true, true, false],
        rules: { maxValidators: 1 },
      }),
    );
    assert.deepEqual(result.bonds[1], []);
    const never = runEpoch(
      subnet([9, 1, 0], [NOTHING, NOTHING, NOTHING], {
        bonds,
        validatorPermits: [true, false, false],
        rules: { maxValidators: 1 },
      }),
    );
    assert.deepEqual(never.bonds[1], [[2, 8]]);
  });

  test("without weights the emission follows the active stake", () => {
    const result = runEpoch(subnet([3, 1, 0], [NOTHING, NOTHING, NOTHING]));
    assert.deepEqual(
      result.validatorShares.map((share) => emissionOf(share, 400n)),
      [300n, 100n, 0n],
    );
    assert.deepEqual(result.serverShares, [0n, 0n, 0n]);
  });

  test("an empty subnet is an epoch like any other", () => {
    assert.deepEqual(runEpoch(subnet([], [])).bonds, []);
  });

  test("lists of different lengths are a fault of the caller", () => {
    assert.throws(() => runEpoch({ ...subnet([1], [NOTHING]), weights: [] }), RangeError);
  });
});

test("shares never exceed the whole and u16 values stay in range, whatever the subnet", () => {
  const neuron = fc.record({
    stake: fc.bigInt({ min: 0n, max: 1n << 62n }),
    update: fc.integer({ min: 800, max: 1000 }),
    registered: fc.integer({ min: 0, max: 1000 }),
    permit: fc.boolean(),
    row: fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 65_535 }))),
  });
  const rules = fc.record({
    yuma3: fc.boolean(),
    liquidAlpha: fc.boolean(),
    alphaLow: fc.integer({ min: 0, max: 65_535 }),
    alphaHigh: fc.integer({ min: 0, max: 65_535 }),
    alphaSigmoidSteepness: fc.integer({ min: -32_768, max: 32_767 }),
    bondsMovingAverage: fc.integer({ min: 0, max: 1_000_000 }),
    bondsPenalty: fc.integer({ min: 0, max: 65_535 }),
    kappa: fc.integer({ min: 0, max: 65_535 }),
    maxValidators: fc.integer({ min: 1, max: 6 }),
  });
  const neurons = fc.array(neuron, { minLength: 6, maxLength: 6 });
  fc.assert(
    fc.property(neurons, rules, (list, chosen) => {
      const rows = list.map(({ row }) => [...new Map(row)]);
      const result = runEpoch({
        ...subnet(
          list.map(() => 0),
          rows,
        ),
        stakesRao: list.map(({ stake }) => stake),
        lastUpdateBlocks: list.map(({ update }) => update),
        registeredAtBlocks: list.map(({ registered }) => registered),
        validatorPermits: list.map(({ permit }) => permit),
        bonds: rows,
        parameters: { ...PARAMETERS, ...chosen },
      });
      const poolRao = 10n ** 18n;
      let paidRao = 0n;
      for (const share of [...result.serverShares, ...result.validatorShares]) {
        assert.ok(share >= 0n);
        paidRao += emissionOf(share, poolRao);
      }
      assert.ok(paidRao <= poolRao, `${paidRao} paid`);
      const values = [result.incentive, result.dividends, result.consensus, result.stakeWeight];
      for (const value of [...values.flat(), ...result.bonds.flat().map(([, bond]) => bond)]) {
        assert.ok(Number.isInteger(value) && value >= 0 && value <= 65_535);
      }
    }),
    { numRuns: 200 },
  );
});
