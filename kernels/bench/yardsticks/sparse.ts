// OpenSSL's side of the state root: the SHA-256 of Node, which is that of OpenSSL, over pieces of 1 MiB on as many
// threads as the rows of sparse_bench.cc have.
import { createHash } from "node:crypto";
import process from "node:process";
import { isMainThread, parentPort, Worker } from "node:worker_threads";

const PIECE_BYTES = 1024 * 1024;

/** Bytes per second of one thread, the best of several rounds over more than the caches hold. */
function bytesPerSecond(pieces: number, rounds: number): number {
  const data = new Uint8Array(pieces * PIECE_BYTES).fill(1);
  let best = 0;
  for (let round = 0; round < rounds; round += 1) {
    const start = performance.now();
    for (let at = 0; at < data.length; at += PIECE_BYTES) {
      createHash("sha256")
        .update(data.subarray(at, at + PIECE_BYTES))
        .digest();
    }
    best = Math.max(best, (1000 * data.length) / (performance.now() - start));
  }
  return best;
}

const quick = process.argv.includes("--quick");
const measure = () => bytesPerSecond(quick ? 32 : 128, quick ? 3 : 7);

function fromWorker(): Promise<number> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { argv: process.argv.slice(2) });
    worker.on("message", resolve).on("error", reject);
  });
}

if (isMainThread) {
  for (const threads of [1, 2]) {
    const speeds = await Promise.all(Array.from({ length: threads }, fromWorker));
    const total = speeds.reduce((sum, speed) => sum + speed, 0);
    const row = {
      id: `hash.openssl.t${threads}`,
      yardstick: `OpenSSL ${process.versions.openssl}, ${threads} of its threads`,
      yardstickValue: total / 1e9,
    };
    process.stdout.write(`${JSON.stringify(row)}\n`);
  }
} else {
  parentPort?.postMessage(measure());
}
