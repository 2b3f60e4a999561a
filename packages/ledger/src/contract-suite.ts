import { strict as assert } from "node:assert";
import { after, before, describe, test } from "node:test";
import type { Hotkey } from "@covenant/contracts";
import { CovenantError } from "@covenant/runtime";
import type { Ledger } from "./ledger.ts";

/** A ledger with a fresh subnet, ready for the contract. */
export interface LedgerFixture {
  ledger: Ledger;
  netuid: number;
  /** Has money for registrations and stake. */
  coldkey: Hotkey;
  /** A new key each time, never registered before. */
  newHotkey(): Hotkey;
  /** Changes the subnet's rule from plain weights to commit-reveal or back. */
  setCommitReveal(enabled: boolean): Promise<void>;
  close(): Promise<void>;
}

const STAKE_RAO = 100_000_000_000n;

/**
 * What every implementation of Ledger promises, as tests. The subnet must take registrations, allow
 * loopback endpoints, have a tempo of at most a few dozen blocks, a weights rate limit shorter than
 * the tempo, and a reveal period of one epoch; blocks must come by themselves.
 */
export function ledgerContract(name: string, makeFixture: () => Promise<LedgerFixture>): void {
  describe(`ledger contract: ${name}`, () => {
    let fixture: LedgerFixture;
    before(async () => {
      fixture = await makeFixture();
    });
    after(() => fixture.close());
    blocksContract(() => fixture);
    registrationContract(() => fixture);
    commitmentContract(() => fixture);
    weightsContract(() => fixture);
  });
}

function blocksContract(get: () => LedgerFixture): void {
  test("blocks come one after another and their randomness stays", async () => {
    const { ledger } = get();
    const head = await ledger.headBlock();
    const reached = await ledger.waitForBlock(head + 2);
    assert.ok(reached >= head + 2);
    const [first, second] = [await ledger.randomness(head + 1), await ledger.randomness(head + 2)];
    assert.equal(first.length, 32);
    assert.notDeepEqual(first, second);
    assert.deepEqual(await ledger.randomness(head + 1), first);
  });

  test("the future has no randomness yet", async () => {
    const { ledger } = get();
    const future = (await ledger.headBlock()) + 100_000;
    await assert.rejects(ledger.randomness(future), hasCode("COV_LEDGER_BLOCK_NOT_FINAL"));
  });

  test("waiting for a block can be cancelled", async () => {
    const { ledger } = get();
    const cancel = new AbortController();
    const waiting = ledger.waitForBlock((await ledger.headBlock()) + 100_000, cancel.signal);
    cancel.abort();
    await assert.rejects(waiting, hasCode("COV_CANCELLED"));
  });
}

function registrationContract(get: () => LedgerFixture): void {
  test("registration costs the coldkey, gives a uid, and is idempotent", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const hotkey = newHotkey();
    const before = await ledger.balance(coldkey.address);
    const uid = await ledger.ensureRegistered({ netuid, hotkey, coldkey });
    const afterOnce = await ledger.balance(coldkey.address);
    assert.ok(afterOnce < before);
    assert.equal(await ledger.ensureRegistered({ netuid, hotkey, coldkey }), uid);
    assert.equal(await ledger.balance(coldkey.address), afterOnce);
    const neuron = (await ledger.metagraph(netuid))[uid];
    assert.equal(neuron?.uid, uid);
    assert.equal(neuron?.hotkey, hotkey.address);
    assert.equal(neuron?.coldkey, coldkey.address);
    assert.equal(neuron?.endpoint, undefined);
  });

  test("several registrations at once all succeed, with different uids", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const hotkeys = [newHotkey(), newHotkey(), newHotkey(), newHotkey()];
    const uids = await Promise.all(
      hotkeys.map((hotkey) => ledger.ensureRegistered({ netuid, hotkey, coldkey })),
    );
    assert.equal(new Set(uids).size, hotkeys.length);
  });

  test("an endpoint appears in the metagraph; serving it again changes nothing", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const hotkey = newHotkey();
    const uid = await ledger.ensureRegistered({ netuid, hotkey, coldkey });
    const endpoint = { host: "127.0.0.1", port: 4242, protocol: 1 };
    await ledger.serveEndpoint({ netuid, hotkey, ...endpoint });
    await ledger.serveEndpoint({ netuid, hotkey, ...endpoint });
    assert.deepEqual((await ledger.metagraph(netuid))[uid]?.endpoint, endpoint);
  });

  test("stake is added and taken back", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const hotkey = newHotkey();
    const uid = await ledger.ensureRegistered({ netuid, hotkey, coldkey });
    const stake = { coldkey, hotkey: hotkey.address, netuid };
    await ledger.addStake({ ...stake, amountRao: STAKE_RAO });
    assert.ok((await ledger.metagraph(netuid))[uid]!.stakeRao >= STAKE_RAO);
    await ledger.removeStake({ ...stake, amountRao: STAKE_RAO / 2n });
    await assert.rejects(
      ledger.removeStake({ ...stake, amountRao: STAKE_RAO * 1000n }),
      isRefusal("NotEnoughStakeToWithdraw"),
    );
  });
}

function commitmentContract(get: () => LedgerFixture): void {
  test("a commitment keeps its bytes, its block and its order", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const hotkeys = [newHotkey(), newHotkey()];
    for (const hotkey of hotkeys) {
      assert.equal(await ledger.commitment(netuid, hotkey.address), undefined);
      await ledger.ensureRegistered({ netuid, hotkey, coldkey });
    }
    const fields = [Uint8Array.of(0, 255, 1), new Uint8Array(128).fill(7)];
    const places = [];
    for (const hotkey of hotkeys) {
      places.push(await ledger.setCommitment({ netuid, hotkey, fields }));
    }
    const found = await ledger.commitment(netuid, hotkeys[0]!.address);
    assert.deepEqual(found, { hotkey: hotkeys[0]!.address, fields, ...places[0]! });
    const all = (await ledger.commitments(netuid)).map(({ hotkey }) => hotkey);
    const [first, second] = hotkeys.map(({ address }) => all.indexOf(address));
    assert.ok(first! >= 0 && first! < second!);
  });

  test("an unregistered hotkey may not commit", async () => {
    const { ledger, netuid, newHotkey } = get();
    await assert.rejects(
      ledger.setCommitment({ netuid, hotkey: newHotkey(), fields: [Uint8Array.of(1)] }),
      isRefusal("AccountNotAllowedCommit"),
    );
  });

  test("more than three fields are refused", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const hotkey = newHotkey();
    await ledger.ensureRegistered({ netuid, hotkey, coldkey });
    const fields = [1, 2, 3, 4].map((value) => Uint8Array.of(value));
    await assert.rejects(
      ledger.setCommitment({ netuid, hotkey, fields }),
      isRefusal("TooManyFieldsInCommitmentInfo"),
    );
  });
}

function weightsContract(get: () => LedgerFixture): void {
  test("a staked validator gets a permit with an epoch; its weights pay the miner", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const [validator, miner] = [newHotkey(), newHotkey()];
    const validatorUid = await ledger.ensureRegistered({ netuid, hotkey: validator, coldkey });
    const minerUid = await ledger.ensureRegistered({ netuid, hotkey: miner, coldkey });
    const vector = { netuid, hotkey: validator, uids: [minerUid], weights: [7], versionKey: 0 };
    await passRateLimit(ledger, netuid);
    await assert.rejects(ledger.setWeights(vector), isRefusal("NeuronNoValidatorPermit"));
    await ledger.addStake({
      coldkey,
      hotkey: validator.address,
      netuid,
      amountRao: STAKE_RAO * 10n,
    });
    await passEpoch(ledger, netuid);
    assert.equal((await ledger.metagraph(netuid))[validatorUid]!.validatorPermit, true);
    await ledger.setWeights(vector);
    assert.deepEqual((await ledger.weights(netuid))[validatorUid], [[minerUid, 65_535]]);
    await assert.rejects(
      ledger.setWeights({ ...vector, uids: [minerUid, minerUid], weights: [1, 1] }),
      // Which rule is met first depends on how many blocks have passed since the last weights.
      (error) => isRefusal("SettingWeightsTooFast", "DuplicateUids")(error),
    );
    await passEpoch(ledger, netuid);
    const paid = (await ledger.metagraph(netuid))[minerUid]!;
    assert.ok(paid.incentive > 0);
    assert.ok(paid.emissionRao > 0n);
    assert.equal((await ledger.emission(netuid)).paused, false);
  });

  test("commit-reveal: no plain weights, a reveal only in its epoch", async () => {
    const { ledger, netuid, coldkey, newHotkey } = get();
    const hotkey = newHotkey();
    const uid = await ledger.ensureRegistered({ netuid, hotkey, coldkey });
    const amountRao = STAKE_RAO * 10n;
    await ledger.addStake({ coldkey, hotkey: hotkey.address, netuid, amountRao });
    await passEpoch(ledger, netuid);
    await get().setCommitReveal(true);
    const vector = { netuid, hotkey, uids: [0, uid], weights: [3, 1], versionKey: 0 };
    const salt = [1, 2, 3];
    await assert.rejects(ledger.setWeights(vector), isRefusal("CommitRevealEnabled"));
    await assert.rejects(
      ledger.revealWeights({ ...vector, salt }),
      isRefusal("NoWeightsCommitFound"),
    );
    // Right after an epoch, so that the next one is far enough away for what follows.
    await passEpoch(ledger, netuid);
    await passRateLimit(ledger, netuid);
    await ledger.commitWeights({ ...vector, salt });
    await assert.rejects(
      ledger.revealWeights({ ...vector, salt: [9] }),
      isRefusal("InvalidRevealCommitHashNotMatch"),
    );
    await passEpoch(ledger, netuid);
    await ledger.revealWeights({ ...vector, salt });
    assert.deepEqual((await ledger.weights(netuid))[uid], [
      [0, 65_535],
      [uid, 21_845],
    ]);
    await get().setCommitReveal(false);
  });
}

async function passRateLimit(ledger: Ledger, netuid: number): Promise<void> {
  const { hyperparameters } = await ledger.subnet(netuid);
  await ledger.waitForBlock((await ledger.headBlock()) + hyperparameters.weightsRateLimitBlocks);
}

/** Waits until the epoch that comes next has run. */
async function passEpoch(ledger: Ledger, netuid: number): Promise<void> {
  const { epochIndex } = await ledger.subnet(netuid);
  for (;;) {
    const now = await ledger.subnet(netuid);
    if (now.epochIndex > epochIndex) return;
    await ledger.waitForBlock(Math.max(now.nextEpochBlock, (await ledger.headBlock()) + 1));
  }
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CovenantError && error.code === code;
}

/** True for a refusal by one of the named rules. */
function isRefusal(...names: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CovenantError, String(error));
    assert.ok(["COV_LEDGER_REJECTED", "COV_LEDGER_RATE_LIMITED"].includes(error.code), error.code);
    assert.ok(names.includes(error.metadata.name ?? ""), `${error.message}, not ${names.join()}`);
    return true;
  };
}
