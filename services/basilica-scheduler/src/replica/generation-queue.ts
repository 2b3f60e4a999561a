import {
  type FingerprintOptions,
  type GenerateRequest,
  type Generator,
  KernelError,
} from "@covenant/kernels";
import type { Logger } from "@covenant/runtime";
import { CovenantError, withSpan } from "@covenant/runtime";

/** What a job says after a token: the sequence goes on, or nobody needs more of it. */
export type TokenVerdict = "go" | "done";

/** Sequences of one completion request. */
export interface GenerationJob {
  readonly requests: readonly GenerateRequest[];
  /** Fingerprints to take. */
  readonly fingerprint: FingerprintOptions | undefined;
  readonly signal: AbortSignal;
  onToken(sequence: number, token: number, logProb: number): TokenVerdict;
}

/** Fingerprints by sequence; undefined where a sequence was cut short or none were asked for. */
export type Fingerprints = (Int8Array | undefined)[];

interface Modules {
  readonly generator: Pick<Generator, "generate">;
  readonly logger: Logger;
}

/**
 * Hands sequences to the generator, in whose batch they join those of other jobs while these are decoded. Bounded;
 * refuses with COV_BUSY. A sequence leaves as soon as nobody needs more of it.
 */
export class GenerationQueue {
  readonly #options: { readonly batchMax: number; readonly queueMax: number };
  readonly #modules: Modules;
  #sequences = 0;
  #jobMs = 1_000;

  constructor(options: { batchMax: number; queueMax: number }, modules: Modules) {
    this.#options = options;
    this.#modules = modules;
  }

  /** Resolves when every sequence has ended, was declared done, or the job's signal aborted. */
  async run(job: GenerationJob): Promise<Fingerprints> {
    const { batchMax, queueMax } = this.#options;
    const queued = Math.max(0, this.#sequences - batchMax);
    if (this.#sequences + job.requests.length > batchMax + queueMax) {
      throw this.#busy(queued);
    }
    if (job.signal.aborted) return [];
    this.#sequences += job.requests.length;
    const startedAtMs = performance.now();
    try {
      const attributes = { "gen_ai.operation.name": "generate", sequences: job.requests.length };
      return await withSpan("replica generate", attributes, () => this.#generate(job));
    } finally {
      this.#sequences -= job.requests.length;
      this.#jobMs = performance.now() - startedAtMs;
    }
  }

  #busy(queued: number): CovenantError {
    const metadata = { retryAfterMs: Math.ceil(this.#jobMs), queued };
    return new CovenantError("COV_BUSY", `${queued} sequences wait already`, { metadata });
  }

  /** All sequences of a job; when one fails, the others are given up. */
  async #generate(job: GenerationJob): Promise<Fingerprints> {
    const failed = new AbortController();
    const signal = AbortSignal.any([job.signal, failed.signal]);
    const sequences = job.requests.map((_, index) => this.#sequence(job, index, signal));
    const ends = await Promise.allSettled(
      sequences.map((sequence) =>
        sequence.catch((error: unknown) => {
          failed.abort();
          throw error;
        }),
      ),
    );
    const broken = ends.find((end) => end.status === "rejected");
    if (broken && isBusy(broken.reason)) {
      throw this.#busy(Math.max(0, this.#sequences - this.#options.batchMax));
    }
    if (broken) {
      this.#modules.logger.error({ error: broken.reason }, "generation failed");
      throw broken.reason;
    }
    return ends.map((end) => (end.status === "fulfilled" ? end.value : undefined));
  }

  async #sequence(
    job: GenerationJob,
    index: number,
    signal: AbortSignal,
  ): Promise<Int8Array | undefined> {
    const request = job.requests[index]!;
    const done = new AbortController();
    const both = AbortSignal.any([signal, done.signal]);
    try {
      const { fingerprints } = await this.#modules.generator.generate(request, {
        signal: both,
        ...(job.fingerprint && { fingerprint: job.fingerprint }),
        onToken: ({ index: position, token, logProb }) => {
          const verdict = job.onToken(index, token, logProb);
          const last = position + 1 === request.maxNewTokens || request.stopTokens.includes(token);
          if (verdict === "done" && !last) done.abort();
        },
      });
      return fingerprints;
    } catch (error) {
      if (both.aborted) return undefined;
      throw error;
    }
  }
}

/** The generator has a bound of its own, which others of its users may have reached. */
function isBusy(error: unknown): boolean {
  return error instanceof KernelError && error.code === "COV_KERNELS_BUSY";
}
