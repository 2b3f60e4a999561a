import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "@covenant/runtime";
import { startTestChain } from "../chain/testing.ts";
import { ledgerContract } from "../contract-suite.ts";
import { TEST_NETUID, testKey } from "../state/testing.ts";
import { connectLedger } from "./connect.ts";
import { RpcClient } from "./rpc-client.ts";
import { Submitter } from "./submitter.ts";

ledgerContract("development chain", async () => {
  const dataDirectory = await mkdtemp(join(tmpdir(), "covenant-ledger-"));
  const chain = await startTestChain({
    dataDirectory,
    blockTimeMs: 5,
    hyperparameters: { tempo: 60, weightsRateLimitBlocks: 2 },
  });
  const ledger = connectLedger({ url: chain.url, timeoutMs: 20_000 });
  const rpc = new RpcClient({ url: chain.url }, { clock: systemClock });
  const submitter = new Submitter({ timeoutMs: 20_000 }, { rpc, clock: systemClock });
  let keys = 0;
  return {
    ledger,
    netuid: TEST_NETUID,
    coldkey: testKey("alice"),
    newHotkey: () => testKey(`contract-${keys++}`),
    setCommitReveal: async (enabled) => {
      const changes = { commitRevealEnabled: enabled };
      const args = { netuid: TEST_NETUID, changes };
      await submitter.submit(testKey("sudo"), { name: "setHyperparameters", args });
    },
    close: async () => {
      ledger.close();
      rpc.close();
      await chain.drain();
      await rm(dataDirectory, { recursive: true, force: true });
    },
  };
});
