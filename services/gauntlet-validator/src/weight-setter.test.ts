import assert from "node:assert/strict";
import { test } from "node:test";
import { VerdictReason } from "@covenant/contracts/gauntlet";
import { applyRound, type GauntletState, initialGauntletState } from "@covenant/gauntlet";
import type { Neuron } from "@covenant/ledger";
import { createLogger } from "@covenant/runtime";
import { Participants } from "./participants.ts";
import { testKey } from "./testing/small-run.ts";
import { WeightSetter } from "./weight-setter.ts";

const validator = testKey(2);
const [alice, mallory] = [testKey(3).address, testKey(4).address];

/** A ledger with one validator and two peers, whose clock the test turns. */
function fakeLedger(commitRevealEnabled: boolean) {
  const ledger = {
    head: 100,
    epochIndex: 1,
    validatorPermit: true,
    lastUpdateBlock: 95,
    set: [] as { uids: readonly number[]; weights: readonly number[] }[],
    committed: [] as { salt: readonly number[]; weights: readonly number[] }[],
    revealed: [] as { salt: readonly number[]; weights: readonly number[] }[],
    headBlock: async () => ledger.head,
    subnet: async () => ({
      epochIndex: ledger.epochIndex,
      hyperparameters: { weightsRateLimitBlocks: 10, commitRevealEnabled, revealPeriodEpochs: 1 },
    }),
    metagraph: async () =>
      [validator.address, alice, mallory].map((hotkey, uid) => {
        const { validatorPermit, lastUpdateBlock } = ledger;
        return { uid, hotkey, validatorPermit, lastUpdateBlock } as Neuron;
      }),
    setWeights: async (vector: { uids: readonly number[]; weights: readonly number[] }) => {
      ledger.set.push(vector);
      ledger.lastUpdateBlock = ledger.head;
      return { block: ledger.head, index: 0 };
    },
    commitWeights: async (vector: { salt: readonly number[]; weights: readonly number[] }) => {
      ledger.committed.push(vector);
      ledger.lastUpdateBlock = ledger.head;
      return { block: ledger.head, index: 0 };
    },
    revealWeights: async (vector: { salt: readonly number[]; weights: readonly number[] }) => {
      ledger.revealed.push(vector);
      return { block: ledger.head, index: 0 };
    },
  };
  return ledger;
}

function judged(state: GauntletState): GauntletState {
  return applyRound(state, state.lastRound + 1, [
    {
      hotkey: alice,
      reason: VerdictReason.ACCEPTED,
      explanation: "",
      comparableImprovement: 1,
    },
    { hotkey: mallory, reason: VerdictReason.COPY, explanation: "", comparableImprovement: 0 },
  ]);
}

/** A setter over fakes; `step` lets it look at the world once. */
function setterOn(ledger: ReturnType<typeof fakeLedger>) {
  const facts = new Map<string, string>();
  const world = { gauntlet: judged(initialGauntletState()) };
  const book = {
    gauntlet: async () => world.gauntlet,
    fact: async (name: string) => facts.get(name),
    saveFact: async (name: string, value: string) => void facts.set(name, value),
  };
  const modules = {
    ledger: ledger as never,
    participants: new Participants({ netuid: 1 }, { ledger: ledger as never }),
    book: book as never,
    logger: createLogger({ service: "test", level: "silent" }),
  };
  const options = { netuid: 1, hotkey: validator, burnShare: 0, burnUid: 0 };
  const setter = () => {
    const stop = new AbortController();
    const clock = {
      nowMs: () => 0,
      sleep: async () => stop.abort(new Error("one step")),
    };
    return { setter: new WeightSetter(options, { ...modules, clock }), stop };
  };
  const step = async (request = false) => {
    const once = setter();
    if (request) once.setter.request();
    await once.setter.run(once.stop.signal);
  };
  return { step, world, facts };
}

test("weights go to the ledger when the rate limit allows, and once per round", async () => {
  const ledger = fakeLedger(false);
  const { step, world, facts } = setterOn(ledger);
  await step();
  assert.equal(ledger.set.length, 0, "too early");
  ledger.head = 105;
  await step();
  assert.deepEqual(ledger.set, [
    { netuid: 1, hotkey: validator, uids: [1], weights: [65_535], versionKey: 0 },
  ]);
  assert.equal(facts.get("weights-set-at-block"), "105");
  ledger.head = 200;
  await step(true);
  assert.equal(ledger.set.length, 1, "nothing new to say");
  world.gauntlet = judged(world.gauntlet);
  await step(true);
  assert.equal(ledger.set.length, 2);
});

test("without a validator permit nothing is sent", async () => {
  const ledger = fakeLedger(false);
  ledger.validatorPermit = false;
  ledger.head = 500;
  const { step } = setterOn(ledger);
  await step();
  assert.equal(ledger.set.length, 0);
});

test("where the subnet wants it, weights are committed and revealed in their epoch", async () => {
  const ledger = fakeLedger(true);
  ledger.head = 200;
  const { step, facts } = setterOn(ledger);
  await step();
  assert.equal(ledger.committed.length, 1);
  await step(true);
  assert.equal(ledger.committed.length, 1, "one commitment at a time");
  assert.equal(ledger.revealed.length, 0, "not in the epoch of the commitment");
  ledger.epochIndex = 2;
  await step();
  assert.equal(ledger.revealed.length, 1);
  assert.deepEqual(ledger.revealed[0]!.salt, ledger.committed[0]!.salt);
  assert.deepEqual(ledger.revealed[0]!.weights, ledger.committed[0]!.weights);
  assert.equal(facts.get("weights-committed"), "");
});

test("a reveal that was slept through is dropped, and the weights are committed anew", async () => {
  const ledger = fakeLedger(true);
  ledger.head = 200;
  const { step } = setterOn(ledger);
  await step();
  ledger.epochIndex = 5;
  ledger.head = 400;
  await step();
  assert.equal(ledger.revealed.length, 0);
  await step(true);
  assert.equal(ledger.committed.length, 2);
});
