import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateOptions, GenerateRequest, GenerateResult } from "@covenant/kernels";
import { createLogger, hasCode } from "@covenant/runtime";
import type { GenerationJob, TokenVerdict } from "./generation-queue.ts";
import { GenerationQueue } from "./generation-queue.ts";

const logger = createLogger({ service: "test", level: "silent" });

/** A model that draws 1, 2, 3, … one token a turn of the event loop, and notes its batches. */
class CountingModel {
  readonly batches: number[] = [];
  aborted = 0;

  async generate(
    requests: readonly GenerateRequest[],
    { onToken, signal }: GenerateOptions = {},
  ): Promise<GenerateResult[]> {
    this.batches.push(requests.length);
    const longest = Math.max(...requests.map((request) => request.maxNewTokens));
    for (let index = 0; index < longest; index += 1) {
      await new Promise(setImmediate);
      if (signal?.aborted) {
        this.aborted += 1;
        throw new Error("cancelled");
      }
      for (const [request, { maxNewTokens }] of requests.entries()) {
        if (index < maxNewTokens) onToken?.({ request, index, token: index + 1, logProb: -1 });
      }
    }
    return requests.map((request) => ({
      tokens: new Int32Array(request.maxNewTokens),
      logProbs: new Float32Array(request.maxNewTokens),
      finishReason: "length",
    }));
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

test("what waits while a batch runs forms the next one, up to its limit", async () => {
  const model = new CountingModel();
  const queue = new GenerationQueue({ batchMax: 4, queueMax: 100 }, { model, logger });
  await Promise.all([
    queue.run(job(1, 3)),
    ...Array.from({ length: 6 }, () => queue.run(job(1, 3))),
  ]);
  assert.deepEqual(model.batches, [1, 4, 2]);
});

test("requests with different fingerprint keys do not share a batch", async () => {
  const model = new CountingModel();
  const queue = new GenerationQueue({ batchMax: 8, queueMax: 100 }, { model, logger });
  const keyed = (value: number) =>
    job(1, 2, { fingerprint: { seed: new Uint8Array(32).fill(value), dims: 16 } });
  await Promise.all([
    queue.run(job(1, 2)),
    queue.run(keyed(1)),
    queue.run(keyed(2)),
    queue.run(keyed(1)),
  ]);
  assert.deepEqual(model.batches, [1, 2, 1]);
});

test("a full queue refuses and says when to come back", async () => {
  const model = new CountingModel();
  const queue = new GenerationQueue({ batchMax: 1, queueMax: 2 }, { model, logger });
  const running = [queue.run(job(1, 5)), queue.run(job(1, 5)), queue.run(job(1, 5))];
  await assert.rejects(
    async () => queue.run(job(1, 5)),
    (error) => {
      assert.ok(hasCode(error, "COV_BUSY"));
      assert.ok(Number(error.metadata.retryAfterMs) > 0);
      return true;
    },
  );
  await Promise.all(running);
});

test("a batch ends when nobody needs more of it, and not before", async () => {
  const model = new CountingModel();
  const queue = new GenerationQueue({ batchMax: 4, queueMax: 100 }, { model, logger });
  const gone = new AbortController();
  const first = queue.run(job(1, 1));
  let seen = 0;
  const kept = queue.run(
    job(1, 50, {
      onToken: (_, token) => {
        seen = token;
        if (token === 5) gone.abort();
        return token === 20 ? "done" : "go";
      },
    }),
  );
  const left = queue.run(job(1, 50, { signal: gone.signal }));
  await Promise.all([first, kept, left]);
  assert.equal(seen, 20);
  assert.equal(model.aborted, 1);
});

test("a request whose client left while waiting costs nothing", async () => {
  const model = new CountingModel();
  const queue = new GenerationQueue({ batchMax: 1, queueMax: 100 }, { model, logger });
  const gone = new AbortController();
  const first = queue.run(job(1, 3));
  const waiting = queue.run(job(1, 3, { signal: gone.signal }));
  gone.abort();
  await Promise.all([first, waiting]);
  assert.deepEqual(model.batches, [1]);
});
