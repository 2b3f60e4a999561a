import { cancellation, throwIfAborted } from "./cancellation.ts";
import { KernelError } from "./errors.ts";
import type { NativeGenerateOutput, NativeModel, NativeReplayOutput } from "./native.ts";
import type {
  GenerateOptions,
  GenerateRequest,
  GenerateResult,
  ReplayOptions,
  ReplayRequest,
  ReplayResult,
} from "./types.ts";

function generateOutput(
  tokens: number,
  dims: number | undefined,
  topCount: number,
): NativeGenerateOutput {
  return {
    tokens: new Int32Array(tokens),
    logProbs: new Float32Array(tokens),
    fingerprints: dims ? new Int8Array(tokens * dims) : undefined,
    topTokens: topCount > 0 ? new Int32Array(tokens * topCount) : undefined,
    topLogProbs: topCount > 0 ? new Float32Array(tokens * topCount) : undefined,
  };
}

function trimmed(
  output: NativeGenerateOutput,
  { tokenCount, stopped }: { tokenCount: number; stopped: boolean },
  dims: number,
  topCount: number,
): GenerateResult {
  const { fingerprints, topTokens, topLogProbs } = output;
  return {
    tokens: output.tokens.slice(0, tokenCount),
    logProbs: output.logProbs.slice(0, tokenCount),
    finishReason: stopped ? "stop" : "length",
    ...(fingerprints && { fingerprints: fingerprints.slice(0, tokenCount * dims) }),
    ...(topTokens && { topTokens: topTokens.slice(0, tokenCount * topCount) }),
    ...(topLogProbs && { topLogProbs: topLogProbs.slice(0, tokenCount * topCount) }),
  };
}

/** A completion must fit the model before arrays are made for it. */
function checkLengths(requests: readonly GenerateRequest[], maxPositions: number) {
  for (const [index, { prompt, maxNewTokens }] of requests.entries()) {
    const fits = Number.isInteger(maxNewTokens) && maxNewTokens >= 1;
    if (fits && prompt.length + maxNewTokens <= maxPositions) continue;
    throw new KernelError(
      "COV_KERNELS_OUT_OF_RANGE",
      `Request ${index}: a prompt of ${prompt.length} and ${maxNewTokens} new tokens must fit ${maxPositions} positions.`,
    );
  }
}

/** Model.generate over the addon. */
export async function generate(
  model: NativeModel,
  maxPositions: number,
  requests: readonly GenerateRequest[],
  options: GenerateOptions,
): Promise<GenerateResult[]> {
  const {
    onToken,
    signal,
    fingerprint,
    weights,
    topLogProbs: topCount = 0,
    maxBatch = 0,
  } = options;
  throwIfAborted(signal);
  checkLengths(requests, maxPositions);
  const dims = fingerprint?.dims ?? 0;
  const outputs = requests.map((request) => generateOutput(request.maxNewTokens, dims, topCount));
  const cancel = cancellation(signal);
  // What the callback throws stops the job and becomes the rejection.
  let thrown: { error: unknown } | undefined;
  const forward = (request: number, index: number, token: number, logProb: number) => {
    if (thrown) return;
    try {
      onToken?.({ request, index, token, logProb });
    } catch (error) {
      thrown = { error };
      cancel.abort();
    }
  };
  try {
    const ends = await model.generate(
      requests.map((request) => ({ ...request, stopTokens: Int32Array.from(request.stopTokens) })),
      {
        fingerprint,
        weights,
        topCount,
        maxBatch,
        cancel: cancel.flag,
        onToken: onToken ? forward : undefined,
      },
      outputs,
    );
    if (thrown) throw thrown.error;
    return ends.map((end, index) => trimmed(outputs[index]!, end, dims, topCount));
  } catch (error) {
    throw thrown ? thrown.error : error;
  } finally {
    cancel.release();
  }
}

/** Model.replay over the addon. */
export async function replay(
  model: NativeModel,
  requests: readonly ReplayRequest[],
  options: ReplayOptions,
): Promise<ReplayResult[]> {
  const { fingerprint, signal, weights } = options;
  throwIfAborted(signal);
  const outputs = requests.map(
    ({ completion: { length } }): NativeReplayOutput => ({
      drawn: new Int32Array(length),
      margin: new Float32Array(length),
      logProbs: new Float32Array(length),
      fingerprints: fingerprint ? new Int8Array(length * fingerprint.dims) : undefined,
    }),
  );
  const cancel = cancellation(signal);
  try {
    await model.replay(requests, { fingerprint, weights, cancel: cancel.flag }, outputs);
  } finally {
    cancel.release();
  }
  return outputs.map(({ fingerprints, ...rest }) => ({
    ...rest,
    ...(fingerprints && { fingerprints }),
  }));
}
