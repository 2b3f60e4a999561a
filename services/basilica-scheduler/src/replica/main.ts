import { join } from "node:path";
import { Inference } from "@covenant/contracts/basilica";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import { connectLedger } from "@covenant/ledger";
import { createClient, createServer, readHotkeyFile, runService } from "@covenant/runtime";
import { BeaconSource } from "./beacon.ts";
import { Completer } from "./completer.ts";
import { replicaConfigSchema } from "./config.ts";
import { GenerationQueue } from "./generation-queue.ts";
import { ReceiptStore } from "./receipt-store.ts";
import { replicaService } from "./replica-service.ts";
import { loadServedModel } from "./served-model.ts";

const name = "inference-replica";
const drainMs = 10_000;

await runService({
  name,
  schema: replicaConfigSchema,
  async start({ config, logger, clock, signal, spans }) {
    const { tls, listen, registryUrl } = config;
    const hotkey = await readHotkeyFile(config.hotkeySeedFile);
    const registry = createClient(CheckpointRegistry, {
      url: registryUrl,
      caFile: tls.caFile,
      hotkey,
    });
    const served = await loadServedModel(config, { registry, clock, logger, signal });
    const ledger =
      config.ledger && connectLedger({ url: config.ledger.url, timeoutMs: config.ledgerTimeoutMs });
    const beacons = new BeaconSource({ ledger, clock });
    const directory = join(config.dataDirectory, "receipts");
    const receipts = new ReceiptStore({ directory, max: config.receiptsMax });
    const limits = { batchMax: config.batchSequencesMax, queueMax: config.queueSequencesMax };
    const generator = await served.model.createGenerator({
      maxBatch: config.batchSequencesMax,
      requestLimit: config.batchSequencesMax + config.queueSequencesMax,
    });
    const queue = new GenerationQueue(limits, { generator, logger });
    const completer = new Completer({ served, queue, beacons, receipts, hotkey, clock });
    const server = createServer({ name, listen, tls }, { logger, clock, spans });
    server.route((routes) => {
      routes.service(Inference, replicaService({ served, completer, receipts, beacons }));
    });
    const { port } = await server.start();
    return {
      endpoint: `${listen.host}:${port}`,
      async drain() {
        await server.drain(drainMs);
        served.model.close();
        await ledger?.close();
      },
    };
  },
});
