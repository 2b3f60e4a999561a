import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startTestChain } from "./chain/testing.ts";
import { connectLedger } from "./client/connect.ts";
import { TEST_NETUID as netuid, testKey } from "./state/testing.ts";

/**
 * Measures how many durable blocks and acknowledged commitments a second the development chain
 * sustains on this machine: `node packages/ledger/src/measure.ts --blocks 500 --hotkeys 16`.
 */
const { values } = parseArgs({
  options: {
    blocks: { type: "string", default: "500" },
    hotkeys: { type: "string", default: "16" },
    rounds: { type: "string", default: "20" },
  },
});

const dataDirectory = await mkdtemp(join(tmpdir(), "covenant-ledger-measure-"));
const chain = await startTestChain({
  dataDirectory,
  blockTimeMs: 1,
  hyperparameters: { commitmentMaxSpaceBytes: 1_000_000, maxRegistrationsPerBlock: 256 },
});
const ledger = connectLedger({ url: chain.url, timeoutMs: 60_000 });
try {
  const blocks = Number(values.blocks);
  const first = await ledger.headBlock();
  const emptySeconds = await secondsOf(() => ledger.waitForBlock(first + blocks));
  const hotkeys = Array.from({ length: Number(values.hotkeys) }, (_, i) => testKey(`m${i}`));
  const coldkey = testKey("alice");
  for (const hotkey of hotkeys) await ledger.ensureRegistered({ netuid, hotkey, coldkey });
  const rounds = Number(values.rounds);
  const before = await ledger.headBlock();
  const busySeconds = await secondsOf(() =>
    Promise.all(
      hotkeys.map(async (hotkey) => {
        for (let round = 0; round < rounds; round++) {
          await ledger.setCommitment({ netuid, hotkey, fields: [new Uint8Array(64).fill(round)] });
        }
      }),
    ),
  );
  const busyBlocks = (await ledger.headBlock()) - before;
  const commitments = hotkeys.length * rounds;
  const report = {
    emptyBlocksPerSecond: Math.round(blocks / emptySeconds),
    commitmentsPerSecond: Math.round(commitments / busySeconds),
    busyBlocksPerSecond: Math.round(busyBlocks / busySeconds),
  };
  process.stdout.write(`${JSON.stringify(report)}\n`);
} finally {
  ledger.close();
  await chain.drain();
  await rm(dataDirectory, { recursive: true, force: true });
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return (performance.now() - startedMs) / 1000;
}
