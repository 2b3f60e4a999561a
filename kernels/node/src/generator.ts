import { asKernelError, awaitKernel, KernelError } from "./errors.ts";
import type { NativeGenerator, NativeGeneratorEvent, NativeModel } from "./native.ts";
import type {
  GenerateRequest,
  GenerateResult,
  GeneratorCallOptions,
  GeneratorOptions,
  GeneratorState,
} from "./types.ts";

/** A request under way. */
interface Pending {
  readonly options: GeneratorCallOptions;
  readonly tokens: number[];
  readonly logProbs: number[];
  readonly fingerprints: Int8Array[];
  readonly topTokens: Int32Array[];
  readonly topLogProbs: Float32Array[];
  resolve(result: GenerateResult): void;
  reject(error: unknown): void;
}

/** As in covenant/generator.h. */
const requestLimitDefault = 4096;

const finishReasons = ["length", "stop"] as const;

/**
 * Serves concurrent callers: their requests join a batch that is already decoding and leave it when they end. What a
 * request yields does not depend on the others. The weights are those of the model when the generator was made or last
 * refreshed; training in between does not disturb requests under way.
 */
export class Generator {
  readonly #native: NativeGenerator;
  readonly #pending = new Map<number, Pending>();
  readonly #requestLimit: number;
  #nextKey = 1;
  #driving = false;
  #closed = false;

  private constructor(native: NativeGenerator, requestLimit: number) {
    this.#native = native;
    this.#requestLimit = requestLimit;
  }

  /** createGenerator of a model or of adapters, over the addon. */
  static async create(model: NativeModel, options: GeneratorOptions): Promise<Generator> {
    const {
      weights = "f32",
      maxBatch = 0,
      stepRows = 0,
      pageLimit = 0,
      requestLimit = 0,
    } = options;
    const limits = { weights, maxBatch, stepRows, pageLimit, requestLimit };
    return new Generator(await model.createGenerator(limits), requestLimit || requestLimitDefault);
  }

  /** What runs, waits and is stored, as of the last step. */
  get state(): GeneratorState {
    return this.#native.state();
  }

  /**
   * A completion by the bound sampler. Aborting the signal rejects with COV_KERNELS_CANCELLED at once; what onToken
   * throws ends the request and becomes the rejection. Tokens arrive in order, before the promise settles. Rejects with
   * COV_KERNELS_BUSY when as many requests as the options allow have not ended.
   */
  generate(request: GenerateRequest, options: GeneratorCallOptions = {}): Promise<GenerateResult> {
    return awaitKernel(() => this.#generate(request, options));
  }

  /** Takes the model's present parameters. Rejects with COV_KERNELS_FAILED_PRECONDITION unless idle. */
  refresh(): Promise<void> {
    return awaitKernel(() => this.#native.refresh());
  }

  /** Requests under way reject with COV_KERNELS_CLOSED, as do all later ones. Safe to call more than once. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#rejectAll(closedError());
    await awaitKernel(() => this.#native.close());
  }

  async #generate(
    request: GenerateRequest,
    options: GeneratorCallOptions,
  ): Promise<GenerateResult> {
    const { signal, fingerprint, topLogProbs: topCount = 0 } = options;
    if (this.#closed) throw closedError();
    if (signal?.aborted) throw cancelledError(signal);
    if (this.#pending.size >= this.#requestLimit) throw busyError(this.#pending.size);
    const key = this.#nextKey++;
    this.#native.submit(
      key,
      { ...request, stopTokens: Int32Array.from(request.stopTokens) },
      { fingerprint, topCount },
    );
    const { promise, resolve, reject } = Promise.withResolvers<GenerateResult>();
    this.#pending.set(key, {
      options,
      tokens: [],
      logProbs: [],
      fingerprints: [],
      topTokens: [],
      topLogProbs: [],
      resolve,
      reject,
    });
    const abort = () => {
      this.#leave(key, cancelledError(signal));
    };
    signal?.addEventListener("abort", abort, { once: true });
    void this.#drive();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Slices of steps until nothing is left; between slices the model's other jobs have their turn. */
  async #drive(): Promise<void> {
    if (this.#driving) return;
    this.#driving = true;
    try {
      while (this.#pending.size > 0) {
        await this.#native.drive((events) => {
          for (const event of events) this.#take(event);
        });
      }
    } catch (error) {
      this.#rejectAll(this.#closed || isStopped(error) ? closedError() : asKernelError(error));
    } finally {
      this.#driving = false;
    }
  }

  #take(event: NativeGeneratorEvent): void {
    const pending = this.#pending.get(event.key);
    if (!pending) return;
    const { key, index, token, logProb, finish, error } = event;
    if (error !== undefined) {
      this.#pending.delete(key);
      pending.reject(asKernelError(error));
      return;
    }
    pending.tokens.push(token);
    pending.logProbs.push(logProb);
    if (event.fingerprint) pending.fingerprints.push(event.fingerprint);
    if (event.topTokens) pending.topTokens.push(event.topTokens);
    if (event.topLogProbs) pending.topLogProbs.push(event.topLogProbs);
    try {
      pending.options.onToken?.({ index, token, logProb });
    } catch (thrown) {
      this.#leave(key, thrown);
      return;
    }
    const finishReason = finishReasons[finish];
    if (finishReason === undefined || !this.#pending.delete(key)) return;
    pending.resolve(resultOf(pending, finishReason));
  }

  #leave(key: number, error: unknown): void {
    const pending = this.#pending.get(key);
    if (!pending) return;
    this.#pending.delete(key);
    this.#native.cancel(key);
    pending.reject(error);
  }

  #rejectAll(error: unknown): void {
    for (const key of [...this.#pending.keys()]) this.#leave(key, error);
  }
}

function resultOf(pending: Pending, finishReason: "length" | "stop"): GenerateResult {
  const { tokens, logProbs, fingerprints, topTokens, topLogProbs } = pending;
  return {
    tokens: Int32Array.from(tokens),
    logProbs: Float32Array.from(logProbs),
    finishReason,
    ...(fingerprints.length > 0 && { fingerprints: joined(Int8Array, fingerprints) }),
    ...(topTokens.length > 0 && { topTokens: joined(Int32Array, topTokens) }),
    ...(topLogProbs.length > 0 && { topLogProbs: joined(Float32Array, topLogProbs) }),
  };
}

interface Settable<T> {
  readonly length: number;
  set(from: T, offset: number): void;
}

/** One array of several of the same length. */
function joined<T extends Settable<T>>(Type: new (length: number) => T, parts: readonly T[]): T {
  const each = parts[0]?.length ?? 0;
  const all = new Type(each * parts.length);
  for (const [index, part] of parts.entries()) all.set(part, index * each);
  return all;
}

/** Callers leave one by one; only the closing of the model stops the batch. */
function isStopped(error: unknown): boolean {
  const known = asKernelError(error);
  return known instanceof KernelError && known.code === "COV_KERNELS_CANCELLED";
}

function busyError(requests: number): KernelError {
  return new KernelError(
    "COV_KERNELS_BUSY",
    `${requests} requests are under way already, which is the limit`,
  );
}

function closedError(): KernelError {
  return new KernelError("COV_KERNELS_CLOSED", "the generator is closed");
}

function cancelledError(signal: AbortSignal | undefined): KernelError {
  return new KernelError("COV_KERNELS_CANCELLED", "The caller aborted the request.", {
    cause: signal?.reason,
  });
}
