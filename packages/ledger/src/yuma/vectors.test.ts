import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { emissionOf, runEpoch } from "./epoch.ts";
import type { StoredRow, YumaParameters, YumaResult } from "./types.ts";

interface VectorParameters {
  yuma3: boolean;
  liquid_alpha?: boolean;
  alpha_low?: number;
  alpha_high?: number;
  alpha_sigmoid_steepness?: number;
  bonds_moving_average: number;
  bonds_penalty: number;
  kappa: number;
  max_validators: number;
  activity_cutoff?: number;
  tempo?: number;
}

interface RuntimeCase {
  name: string;
  block: number;
  params: VectorParameters;
  stakes: number[];
  last_update: number[];
  block_at_registration: number[];
  validator_permits: boolean[];
  weights: StoredRow[];
  bonds: StoredRow[];
  expect: Record<string, unknown>;
}

interface ScenarioEpoch {
  epoch: number;
  set_weights?: { validators: number[]; dests: number[]; rows: number[][] };
  reset_bonds_of_uid?: number;
  expect?: { dividends: number[]; bonds_to_servers: number[][] };
}

interface Scenario {
  name: string;
  n: number;
  validators: number;
  stakes: number[];
  tolerance: number;
  params_u16: VectorParameters;
  epochs: ScenarioEpoch[];
}

interface BondsTable {
  n: number;
  stakes: number[];
  emission: number;
  params: VectorParameters;
  steps: {
    set_weights: Record<string, StoredRow>;
    expect_bonds_col: Record<string, number[]>;
    expect_emission: number[];
  }[];
}

const vectors = JSON.parse(
  readFileSync(
    new URL("../../../../test/vectors/ledger/yuma-vectors.json", import.meta.url),
    "utf8",
  ),
) as { runtime_cases: RuntimeCase[]; scenarios: Scenario[]; bonds_yuma2: BondsTable };

const RAO_PER_TAO = 1_000_000_000n;

function parametersOf(vector: VectorParameters): YumaParameters {
  return {
    yuma3: vector.yuma3,
    liquidAlpha: vector.liquid_alpha ?? false,
    alphaLow: vector.alpha_low ?? 0,
    alphaHigh: vector.alpha_high ?? 0,
    alphaSigmoidSteepness: vector.alpha_sigmoid_steepness ?? 1000,
    bondsMovingAverage: vector.bonds_moving_average,
    bondsPenalty: vector.bonds_penalty,
    kappa: vector.kappa,
    maxValidators: vector.max_validators,
    activityCutoffBlocks: vector.activity_cutoff ?? 5000,
    stakeThresholdRao: 0n,
  };
}

describe("epochs executed by a real runtime", () => {
  assert.equal(vectors.runtime_cases.length, 60);
  for (const vector of vectors.runtime_cases) {
    test(vector.name, () => {
      const result = runEpoch({
        block: vector.block,
        lastEpochBlock: vector.block - vector.params.tempo!,
        stakesRao: vector.stakes.map(BigInt),
        lastUpdateBlocks: vector.last_update,
        registeredAtBlocks: vector.block_at_registration,
        validatorPermits: vector.validator_permits,
        weights: vector.weights,
        bonds: vector.bonds,
        parameters: parametersOf(vector.params),
      });
      const { rank: _rank, trust: _trust, pruningScores: _scores, ...expected } = vector.expect;
      assert.deepEqual(comparable(result), expected);
    });
  }
});

function comparable(result: YumaResult): Record<string, unknown> {
  const { serverShares: _server, validatorShares: _validator, combinedShares, ...stored } = result;
  return {
    ...stored,
    emission: combinedShares.map((share) => Number(emissionOf(share, RAO_PER_TAO))),
  };
}

/** A subnet whose epochs follow each other, with neurons registered long ago. */
class History {
  block = 10;
  weights: StoredRow[];
  bonds: StoredRow[];
  permits: boolean[];
  readonly stakes: bigint[];
  readonly parameters: YumaParameters;

  constructor(stakes: number[], parameters: YumaParameters) {
    this.stakes = stakes.map((stake) => BigInt(stake) * RAO_PER_TAO);
    this.weights = stakes.map(() => []);
    this.bonds = stakes.map(() => []);
    this.permits = stakes.map((stake) => stake > 0);
    this.parameters = parameters;
  }

  epoch(): YumaResult {
    this.block += 1;
    const result = runEpoch({
      block: this.block,
      lastEpochBlock: this.block - 1,
      stakesRao: this.stakes,
      lastUpdateBlocks: this.stakes.map(() => this.block),
      registeredAtBlocks: this.stakes.map(() => 0),
      validatorPermits: this.permits,
      weights: this.weights,
      bonds: this.bonds,
      parameters: this.parameters,
    });
    this.bonds = result.bonds;
    this.permits = result.validatorPermit;
    return result;
  }
}

function valueAt(row: StoredRow, uid: number): number {
  return row.find(([column]) => column === uid)?.[1] ?? 0;
}

describe("multi-epoch scenarios of Subtensor's tests", () => {
  assert.equal(vectors.scenarios.length, 7);
  for (const scenario of vectors.scenarios) {
    test(scenario.name, () => {
      const history = new History(scenario.stakes, parametersOf(scenario.params_u16));
      let checks = 0;
      for (const step of scenario.epochs) {
        for (const [index, uid] of (step.set_weights?.validators ?? []).entries()) {
          const { dests, rows } = step.set_weights!;
          history.weights[uid] = dests.map((dest, column) => [dest, rows[index]![column]!]);
        }
        const reset = step.reset_bonds_of_uid;
        if (reset !== undefined) {
          history.bonds = history.bonds.map((row) => row.filter(([uid]) => uid !== reset));
        }
        const result = history.epoch();
        if (step.expect === undefined) continue;
        checks += 1;
        const near = (actual: number, expected: number, what: string): void =>
          assert.ok(
            Math.abs(actual - expected) <= scenario.tolerance,
            `epoch ${step.epoch}: ${what} is ${actual}, expected ${expected}`,
          );
        for (const [uid, expected] of step.expect.dividends.entries()) {
          near(result.dividends[uid]! / 65535, expected, `dividends of ${uid}`);
        }
        for (const [uid, row] of step.expect.bonds_to_servers.entries()) {
          for (const [server, expected] of row.entries()) {
            const column = scenario.validators + server;
            near(valueAt(result.bonds[uid]!, column) / 65535, expected, `bond ${uid}-${column}`);
          }
        }
      }
      assert.ok(checks > 0);
    });
  }
});

test("bonds and emissions of Yuma 2 over seven epochs, exact", () => {
  const table = vectors.bonds_yuma2;
  const history = new History(table.stakes, parametersOf(table.params));
  for (const step of table.steps) {
    for (const [uid, row] of Object.entries(step.set_weights)) history.weights[Number(uid)] = row;
    const result = history.epoch();
    for (const [column, expected] of Object.entries(step.expect_bonds_col)) {
      const bonds = expected.map((_value, uid) => valueAt(result.bonds[uid]!, Number(column)));
      assert.deepEqual(bonds, expected);
    }
    const emission = result.combinedShares.map((share) =>
      Number(emissionOf(share, BigInt(table.emission))),
    );
    assert.deepEqual(emission, step.expect_emission);
  }
});
