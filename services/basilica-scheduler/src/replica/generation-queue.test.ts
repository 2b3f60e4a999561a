import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type GenerateRequest,
  type GenerateResult,
  type GeneratorCallOptions,
  KernelError,
} from "@covenant/kernels";
import { createLogger, hasCode } from "@covenant/runtime";
import type { GenerationJob, TokenVerdict } from "./generation-queue.ts";
import { GenerationQueue } from "./generation-queue.ts";

const logger = createLogger({ service: "test", level: "silent" });

/** A generator that draws 1, 2, 3, … one token a turn of the event loop, and notes who runs together. */
class CountingGenerator {
  running = 0;
  most = 0;
  started = 0;
  aborted = 0;
  seeds: number[] = [];

  async generate(
    { maxNewTokens }: GenerateRequest,
    { onToken, signal, fingerprint }: GeneratorCallOptions = {},
  ): Promise<GenerateResult> {
    this.started += 1;
    this.running += 1;
    this.most = Math.max(this.most, this.running);
    if (fingerprint) this.seeds.push(fingerprint.seed[0]!);
    try {
      for (let index = 0; index < maxNewTokens; index += 1) {
        await new Promise(setImmediate);
        if (signal?.aborted) {
          this.aborted += 1;
          throw new Error("cancelled");
        }
        if (maxNewTokens === 13) throw new Error("broken");
        if (maxNewTokens === 17) throw new KernelError("COV_KERNELS_BUSY", "full");
        onToken?.({ index, token: index + 1, logProb: -1 });
      }
    } finally {
      this.running -= 1;
    }
    return {
      tokens: new Int32Array(maxNewTokens),
      logProbs: new Float32Array(maxNewTokens),
      finishReason: "length",
      ...(fingerprint && { fingerprints: new Int8Array(maxNewTokens * fingerprint.dims) }),
    };
  }
}

function job(
  sequences: number,
  maxNewTokens: number,
  more: Partial<GenerationJob> = {},
): GenerationJob {
  const request: GenerateRequest = {
    prompt: Int32Array.of(1),
    maxNewTokens,
    stopTokens: [],
    temperature: 1,
    topK: 0,
    topP: 1,
    samplingSeed: new Uint8Array(32),
  };
  return {
    requests: Array.from({ length: sequences }, () => request),
    fingerprint: undefined,
    signal: new AbortController().signal,
    onToken: (): TokenVerdict => "go",
    ...more,
  };
}

test("jobs run side by side, whatever their fingerprints", async () => {
  const generator = new CountingGenerator();
  const queue = new GenerationQueue({ batchMax: 4, queueMax: 100 }, { generator, logger });
  const keyed = (value: number) =>
    job(2, 3, { fingerprint: { seed: new Uint8Array(32).fill(value), dims: 16 } });
  const results = await Promise.all([
    queue.run(job(1, 3)),
    queue.run(keyed(1)),
    queue.run(keyed(2)),
  ]);
  assert.equal(generator.most, 5);
  assert.deepEqual(generator.seeds, [1, 1, 2, 2]);
  assert.deepEqual(
    results.map((fingerprints) => fingerprints.map((bytes) => bytes?.length)),
    [[undefined], [48, 48], [48, 48]],
  );
});

test("a full queue refuses and says when to come back", async () => {
  const generator = new CountingGenerator();
  const queue = new GenerationQueue({ batchMax: 1, queueMax: 2 }, { generator, logger });
  const running = [queue.run(job(1, 5)), queue.run(job(1, 5)), queue.run(job(1, 5))];
  await assert.rejects(
    async () => queue.run(job(1, 5)),
    (error) => {
      assert.ok(hasCode(error, "COV_BUSY"));
      assert.ok(Number(error.metadata.retryAfterMs) > 0);
      assert.equal(Number(error.metadata.queued), 2);
      return true;
    },
  );
  await Promise.all(running);
  await queue.run(job(3, 1));
});

test("a full generator is a full queue", async () => {
  const generator = new CountingGenerator();
  const queue = new GenerationQueue({ batchMax: 4, queueMax: 100 }, { generator, logger });
  await assert.rejects(
    queue.run(job(2, 17)),
    (error) => hasCode(error, "COV_BUSY") && Number(error.metadata.retryAfterMs) > 0,
  );
});

test("a sequence ends when nobody needs more of it, the others go on", async () => {
  const generator = new CountingGenerator();
  const queue = new GenerationQueue({ batchMax: 4, queueMax: 100 }, { generator, logger });
  const gone = new AbortController();
  const seen = [0, 0];
  const kept = queue.run(
    job(2, 50, {
      fingerprint: { seed: new Uint8Array(32), dims: 1 },
      onToken: (sequence, token) => {
        seen[sequence] = token;
        if (token === 5) gone.abort();
        return sequence === 0 && token === 20 ? "done" : "go";
      },
    }),
  );
  const left = queue.run(job(1, 50, { signal: gone.signal }));
  const [fingerprints, none] = await Promise.all([kept, left]);
  assert.deepEqual(seen, [20, 50]);
  assert.deepEqual(
    fingerprints.map((bytes) => bytes?.length),
    [undefined, 50],
  );
  assert.deepEqual(none, [undefined]);
  assert.equal(generator.aborted, 2);
});

test("done at the last token is no cut", async () => {
  const generator = new CountingGenerator();
  const queue = new GenerationQueue({ batchMax: 4, queueMax: 100 }, { generator, logger });
  const onToken = (_: number, token: number): TokenVerdict => (token === 4 ? "done" : "go");
  const fingerprint = { seed: new Uint8Array(32), dims: 2 };
  const [bytes] = await queue.run(job(1, 4, { fingerprint, onToken }));
  assert.equal(bytes?.length, 8);
  assert.equal(generator.aborted, 0);
});

test("a request whose client has left costs nothing", async () => {
  const generator = new CountingGenerator();
  const queue = new GenerationQueue({ batchMax: 1, queueMax: 100 }, { generator, logger });
  assert.deepEqual(await queue.run(job(1, 3, { signal: AbortSignal.abort() })), []);
  assert.equal(generator.started, 0);
});

test("when one sequence fails, its siblings are given up and the job rejects", async () => {
  const generator = new CountingGenerator();
  const queue = new GenerationQueue({ batchMax: 4, queueMax: 100 }, { generator, logger });
  const { requests, ...rest } = job(1, 50);
  const mixed = { ...rest, requests: [...requests, ...job(1, 13).requests] };
  await assert.rejects(queue.run(mixed), { message: "broken" });
  assert.equal(generator.aborted, 1);
});
