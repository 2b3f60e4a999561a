import type { CompleteRequest } from "@covenant/contracts/basilica";
import { CovenantError } from "@covenant/runtime";
import { ReceiptStore } from "./receipt-store.ts";
import type { ServedModel } from "./served-model.ts";

/** Bounds of one request. */
const choicesMax = 16;
const alternativesMax = 20;
const stopsMax = 16;
const stopBytesMax = 256;
const promptBytesMax = 4 * 1024 * 1024;
const temperatureMax = 10;

/** A request after every check, in tokens. */
export interface PreparedCompletion {
  readonly prompt: Int32Array;
  /** At least 0; prompt and this fit the model. */
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly n: number;
  readonly seed: bigint | undefined;
  readonly stops: readonly string[];
  readonly stopTokens: readonly number[];
  /** Alternatives per token; undefined when no log-probabilities are asked for. */
  readonly logProbs: number | undefined;
  readonly echo: boolean;
  readonly wantReceipt: boolean;
  /** Empty: the replica chooses. */
  readonly completionId: string;
}

/** Checks a request against bounds and model; throws COV_INVALID_ARGUMENT, COV_CONTEXT_TOO_LONG, COV_MODEL_NOT_FOUND. */
export function prepareCompletion(
  request: CompleteRequest,
  served: ServedModel,
): PreparedCompletion {
  if (request.model !== "" && request.model !== served.id) {
    throw new CovenantError("COV_MODEL_NOT_FOUND", `this replica serves "${served.id}"`);
  }
  const sampling = request.sampling ?? {
    temperature: 0,
    topK: 0,
    topP: 1,
    maxNewTokens: 0,
    stopTokenIds: [],
  };
  const { temperature, topK } = sampling;
  // Not set and "no limit" are the same.
  const topP = sampling.topP === 0 ? 1 : sampling.topP;
  const n = request.n === 0 ? 1 : request.n;
  check(n <= choicesMax, "n", `is more than ${choicesMax}`);
  check(
    temperature >= 0 && temperature <= temperatureMax,
    "sampling.temperature",
    "is out of range",
  );
  check(topP > 0 && topP <= 1, "sampling.top_p", "is out of range");
  check((request.logProbs ?? 0) <= alternativesMax, "log_probs", `is more than ${alternativesMax}`);
  check(request.stop.length <= stopsMax, "stop", `has more than ${stopsMax} entries`);
  const stopFits = (stop: string): boolean =>
    stop !== "" && Buffer.byteLength(stop) <= stopBytesMax;
  check(
    request.stop.every(stopFits),
    "stop",
    `has an empty entry or one over ${stopBytesMax} bytes`,
  );
  const { completionId } = request;
  const isId = completionId === "" || ReceiptStore.isId(completionId);
  check(isId, "completion_id", "is not 8 to 64 letters, digits, hyphens and underscores");
  const wantsNothing = sampling.maxNewTokens === 0 && !request.echo;
  check(!wantsNothing, "sampling.max_new_tokens", "is 0 without echo");
  const vocabulary = served.tokenizer.vocabSize;
  check(
    sampling.stopTokenIds.length <= stopsMax - 2,
    "sampling.stop_token_ids",
    "has too many entries",
  );
  const stopTokens = [...new Set([...served.stopTokens, ...sampling.stopTokenIds])];
  check(
    stopTokens.every((token) => token < vocabulary),
    "sampling.stop_token_ids",
    "are out of range",
  );
  const prompt = readPrompt(request, served);
  return {
    prompt,
    maxNewTokens: fitLength(prompt.length, sampling.maxNewTokens, served),
    temperature,
    topK: Math.min(topK, vocabulary),
    topP,
    n,
    seed: request.seed,
    stops: request.stop,
    stopTokens,
    logProbs: request.logProbs,
    echo: request.echo,
    wantReceipt: request.wantReceipt,
    completionId,
  };
}

function fitLength(promptTokens: number, asked: number, served: ServedModel): number {
  const { maxPositions } = served.model.shape;
  const left = maxPositions - promptTokens;
  if (left >= (asked === 0 ? 0 : 1)) return Math.min(asked, left);
  const text = `the prompt has ${promptTokens} tokens and the model a context of ${maxPositions}`;
  throw new CovenantError("COV_CONTEXT_TOO_LONG", text, {
    metadata: { promptTokens, maxPositions },
  });
}

function readPrompt(request: CompleteRequest, { tokenizer }: ServedModel): Int32Array {
  const kinds = [request.messages.length, request.prompt.length, request.promptTokens.length];
  check(
    kinds.filter((length) => length > 0).length <= 1,
    "prompt",
    "is given in more than one way",
  );
  if (request.promptTokens.length > 0) {
    const inRange = request.promptTokens.every((token) => token < tokenizer.vocabSize);
    check(inRange, "prompt_tokens", "has a token outside the vocabulary");
    return Int32Array.from(request.promptTokens);
  }
  const texts = [request.prompt, ...request.messages.map((message) => message.content)];
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  check(bytes <= promptBytesMax, "prompt", `is longer than ${promptBytesMax} bytes`);
  if (request.messages.length === 0) {
    const tokens = tokenizer.encode(request.prompt);
    // Nothing to go on: the model begins a document.
    return tokens.length > 0 ? tokens : Int32Array.of(tokenizer.eosId);
  }
  const roleFits = request.messages.every((message) => /^[a-z_]{1,32}$/.test(message.role));
  check(roleFits, "messages", "have a role that is not a name");
  const messages = request.messages.map(({ role, content }) => ({ role, content }));
  try {
    return tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true });
  } catch (cause) {
    const text = `messages cannot be rendered: ${(cause as Error).message}`;
    throw new CovenantError("COV_INVALID_ARGUMENT", text, {
      cause,
      metadata: { field: "messages" },
    });
  }
}

function check(holds: boolean, field: string, problem: string): void {
  if (holds) return;
  throw new CovenantError("COV_INVALID_ARGUMENT", `${field} ${problem}`, { metadata: { field } });
}
