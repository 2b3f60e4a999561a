import type {
  FingerprintOptions,
  GenerateOptions,
  GenerateRequest,
  Model,
} from "@covenant/kernels";
import type { Logger } from "@covenant/runtime";
import { CovenantError, withSpan } from "@covenant/runtime";

/** What a job says after a token: the sequence goes on, or nobody needs more of it. */
export type TokenVerdict = "go" | "done";

/** Sequences of one completion request. */
export interface GenerationJob {
  readonly requests: readonly GenerateRequest[];
  /** Fingerprints to take; jobs with different ones never share a batch. */
  readonly fingerprint: FingerprintOptions | undefined;
  readonly signal: AbortSignal;
  onToken(sequence: number, token: number, logProb: number): TokenVerdict;
}

/** Fingerprints by sequence; undefined where the batch was cut short or none were asked for. */
export type Fingerprints = (Int8Array | undefined)[];

interface Waiting {
  readonly job: GenerationJob;
  readonly key: string;
  resolve(fingerprints: Fingerprints): void;
  reject(error: unknown): void;
}

interface Modules {
  readonly model: Pick<Model, "generate">;
  readonly logger: Logger;
}

/**
 * Generates for several requests at once: what waits while a batch runs forms the next one. Bounded;
 * refuses with COV_BUSY. A batch ends as soon as nobody needs more of it.
 */
export class GenerationQueue {
  readonly #options: { readonly batchMax: number; readonly queueMax: number };
  readonly #modules: Modules;
  readonly #waiting: Waiting[] = [];
  #busy = false;
  #batchMs = 1_000;

  constructor(options: { batchMax: number; queueMax: number }, modules: Modules) {
    this.#options = options;
    this.#modules = modules;
  }

  /** Resolves when every sequence has ended, was declared done, or the job's signal aborted. */
  run(job: GenerationJob): Promise<Fingerprints> {
    const queued = this.#waiting.reduce((sum, entry) => sum + entry.job.requests.length, 0);
    if (queued + job.requests.length > this.#options.queueMax) {
      const metadata = { retryAfterMs: Math.ceil(this.#batchMs), queued };
      throw new CovenantError("COV_BUSY", `${queued} sequences wait already`, { metadata });
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, key: batchKey(job), resolve, reject });
      if (!this.#busy) void this.#work();
    });
  }

  async #work(): Promise<void> {
    this.#busy = true;
    for (let batch = this.#take(); batch.length > 0; batch = this.#take()) {
      const startedAtMs = performance.now();
      await this.#generate(batch);
      this.#batchMs = performance.now() - startedAtMs;
    }
    this.#busy = false;
  }

  /** The oldest job and all others that can run with it, in order. */
  #take(): Waiting[] {
    const batch: Waiting[] = [];
    let sequences = 0;
    for (const entry of [...this.#waiting]) {
      if (entry.job.signal.aborted) {
        entry.resolve([]);
      } else {
        const count = entry.job.requests.length;
        const fits = batch.length === 0 || sequences + count <= this.#options.batchMax;
        if (!fits || (batch.length > 0 && entry.key !== batch[0]!.key)) continue;
        batch.push(entry);
        sequences += count;
      }
      this.#waiting.splice(this.#waiting.indexOf(entry), 1);
    }
    return batch;
  }

  async #generate(batch: readonly Waiting[]): Promise<void> {
    const { model, logger } = this.#modules;
    const run = new BatchRun(batch.map((entry) => entry.job));
    const fingerprint = batch[0]!.job.fingerprint;
    try {
      const options: GenerateOptions = {
        onToken: ({ request, index, token, logProb }) =>
          run.onToken(request, index, token, logProb),
        signal: run.signal,
        ...(fingerprint && { fingerprint }),
      };
      const attributes = { "gen_ai.operation.name": "generate", sequences: run.requests.length };
      const results = await withSpan("replica generate", attributes, () =>
        model.generate(run.requests, options),
      );
      let first = 0;
      for (const { job, resolve } of batch) {
        const own = results.slice(first, first + job.requests.length);
        first += job.requests.length;
        resolve(own.map((result) => result.fingerprints));
      }
    } catch (error) {
      if (!run.signal.aborted) logger.error({ error }, "generation failed");
      for (const { job, resolve, reject } of batch) {
        if (run.signal.aborted) resolve(job.requests.map(() => undefined));
        else reject(error);
      }
    } finally {
      run.close();
    }
  }
}

/** Follows which sequences of a batch are still needed, and aborts when none is. */
class BatchRun {
  readonly requests: GenerateRequest[] = [];
  readonly #owners: { job: GenerationJob; sequence: number; open: boolean }[] = [];
  readonly #controller = new AbortController();
  readonly #releases: (() => void)[] = [];
  #open: number;
  #cut = false;

  constructor(jobs: readonly GenerationJob[]) {
    for (const job of jobs) {
      const first = this.requests.length;
      for (const [sequence, request] of job.requests.entries()) {
        this.requests.push(request);
        this.#owners.push({ job, sequence, open: true });
      }
      const last = this.requests.length;
      const abort = (): void => {
        for (let i = first; i < last; i += 1) this.#close(i, true);
      };
      job.signal.addEventListener("abort", abort, { once: true });
      this.#releases.push(() => job.signal.removeEventListener("abort", abort));
    }
    this.#open = this.requests.length;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  onToken(index: number, position: number, token: number, logProb: number): void {
    const owner = this.#owners[index]!;
    if (!owner.open) return;
    const verdict = owner.job.onToken(owner.sequence, token, logProb);
    const request = this.requests[index]!;
    const ended = request.stopTokens.includes(token) || position + 1 === request.maxNewTokens;
    if (ended || verdict === "done") this.#close(index, !ended);
  }

  close(): void {
    for (const release of this.#releases) release();
  }

  #close(index: number, cut: boolean): void {
    const owner = this.#owners[index]!;
    if (!owner.open) return;
    owner.open = false;
    this.#open -= 1;
    this.#cut ||= cut;
    if (this.#open === 0 && this.#cut) this.#controller.abort();
  }
}

function batchKey(job: GenerationJob): string {
  const { fingerprint } = job;
  if (fingerprint === undefined) return "";
  return `${fingerprint.dims}:${Buffer.from(fingerprint.seed).toString("hex")}`;
}
