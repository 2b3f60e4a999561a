import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Hotkey } from "@covenant/contracts";
import { sha256 } from "@covenant/contracts";
import type { CompleteResponse, TokenLogProb } from "@covenant/contracts/basilica";
import { CompleteResponseSchema, CompletionPieceSchema } from "@covenant/contracts/basilica";
import {
  buildReceipt,
  defaultFingerprintDims,
  fingerprintSeed,
  samplingParameters,
  samplingSeed,
} from "@covenant/grail";
import type { Clock } from "@covenant/runtime";
import { CovenantError } from "@covenant/runtime";
import { AsyncQueue } from "./async-queue.ts";
import type { Beacon, BeaconSource } from "./beacon.ts";
import type { PreparedCompletion } from "./completion-request.ts";
import type { Fingerprints, GenerationQueue, TokenVerdict } from "./generation-queue.ts";
import type { ReceiptStore } from "./receipt-store.ts";
import { describeToken, scoreTokens } from "./scoring.ts";
import type { TextPiece } from "./sequence-text.ts";
import { SequenceText } from "./sequence-text.ts";
import type { ServedModel } from "./served-model.ts";

interface Modules {
  readonly served: ServedModel;
  readonly queue: GenerationQueue;
  readonly beacons: BeaconSource;
  readonly receipts: ReceiptStore;
  readonly hotkey: Hotkey;
  readonly clock: Clock;
}

/** One choice while it is generated. */
interface Choice {
  readonly text: SequenceText;
  readonly tokens: number[];
  readonly logProbs: number[];
  /** Pieces not sent yet, when log-probabilities with alternatives wait for the end. */
  readonly held: TextPiece[];
  finishReason: "" | "stop" | "length";
}

/** Answers one request at a time to its caller; requests run together in the queue's batches. */
export class Completer {
  readonly #modules: Modules;

  constructor(modules: Modules) {
    this.#modules = modules;
  }

  /**
   * Yields pieces of all choices as they come, then the summary. Pieces with alternatives come at
   * the end of their choice, since those need a forward pass of their own. Aborting the signal ends
   * the generation at the next token.
   */
  async *complete(
    request: PreparedCompletion,
    signal: AbortSignal,
  ): AsyncGenerator<CompleteResponse> {
    const { receipts, served } = this.#modules;
    const completionId = request.completionId || `cmpl-${randomBytes(12).toString("hex")}`;
    if (request.wantReceipt && receipts.has(completionId)) {
      throw new CovenantError("COV_ALREADY_EXISTS", `completion ${completionId} exists already`);
    }
    const promptBytes = served.tokenizer.decodeBytes(request.prompt).length;
    if (request.echo) yield* this.#echo(request);
    const choices = newChoices(request, served);
    const willReceipt = request.wantReceipt && request.maxNewTokens > 0;
    if (request.maxNewTokens > 0) {
      const draw = await this.#draw(request);
      const run = this.#generate(request, draw, choices, promptBytes, signal);
      for (;;) {
        const next = await run.next();
        if (!next.done) {
          yield next.value;
          continue;
        }
        if (willReceipt) await this.#issue(request, completionId, draw, choices, next.value);
        break;
      }
    }
    const value = {
      completionId,
      promptTokens: request.prompt.length,
      completionTokens: choices.reduce((sum, choice) => sum + choice.tokens.length, 0),
      receiptAvailable: willReceipt,
    };
    yield create(CompleteResponseSchema, { item: { case: "summary", value } });
  }

  /** The prompt as a piece of every choice; it ends there when nothing is generated. */
  async *#echo(request: PreparedCompletion): AsyncGenerator<CompleteResponse> {
    const { tokenizer, model } = this.#modules.served;
    const { prompt, logProbs, maxNewTokens, n } = request;
    const tokens: TokenLogProb[] = [];
    if (logProbs !== undefined) {
      let offset = 0;
      for (const scored of await scoreTokens(model, prompt, logProbs)) {
        const described = describeToken(tokenizer, scored, offset);
        offset += described.textBytes.length;
        tokens.push(described);
      }
    }
    const text = tokenizer.decode(prompt);
    const finishReason = maxNewTokens === 0 ? "length" : "";
    for (let choice = 0; choice < n; choice += 1)
      yield piece({ choice, text, tokens, finishReason });
  }

  async #draw(request: PreparedCompletion): Promise<{ beacon: Beacon; firstIndex: number }> {
    const { buffer, byteOffset, byteLength } = request.prompt;
    const hash = sha256(new Uint8Array(buffer, byteOffset, byteLength));
    return this.#modules.beacons.draw(request.seed, hash, request.n);
  }

  async *#generate(
    request: PreparedCompletion,
    { beacon, firstIndex }: { beacon: Beacon; firstIndex: number },
    choices: readonly Choice[],
    promptBytes: number,
    signal: AbortSignal,
  ): AsyncGenerator<CompleteResponse, Fingerprints> {
    const { served, queue } = this.#modules;
    const { prompt, maxNewTokens, temperature, topK, topP, stopTokens } = request;
    const out = new AsyncQueue<CompleteResponse>();
    const over = new AbortController();
    const holds = (request.logProbs ?? 0) > 0;
    const onToken = (index: number, token: number, logProb: number): TokenVerdict => {
      const choice = choices[index]!;
      const shown = take(choice, token, logProb, request);
      for (const part of shown) {
        if (holds) choice.held.push(part);
        else out.push(this.#visible(index, choice, part, request, promptBytes));
      }
      return choice.finishReason === "" ? "go" : "done";
    };
    const running = queue.run({
      requests: choices.map((_, index) => ({
        prompt,
        maxNewTokens,
        temperature,
        topK,
        topP,
        stopTokens,
        samplingSeed: samplingSeed({
          beacon: beacon.randomness,
          checkpointRoot: served.root,
          promptTokens: prompt,
          rolloutIndex: firstIndex + index,
        }),
      })),
      fingerprint: request.wantReceipt ? this.#fingerprint(beacon) : undefined,
      signal: AbortSignal.any([signal, over.signal]),
      onToken,
    });
    running.then(
      () => out.end(),
      (error) => out.fail(error),
    );
    try {
      yield* out;
    } finally {
      over.abort();
    }
    signal.throwIfAborted();
    if (holds) yield* this.#withAlternatives(request, choices, promptBytes);
    return running;
  }

  #fingerprint(beacon: Beacon) {
    const seed = fingerprintSeed(beacon.randomness, this.#modules.served.root);
    return { seed, dims: defaultFingerprintDims };
  }

  #visible(
    index: number,
    choice: Choice,
    part: TextPiece,
    request: PreparedCompletion,
    promptBytes: number,
  ): CompleteResponse {
    const { tokenizer } = this.#modules.served;
    const before = request.echo ? promptBytes : 0;
    const wanted = request.logProbs === undefined ? [] : part.tokens;
    const tokens = wanted.map(({ token, logProb, offset }) =>
      describeToken(tokenizer, { token, logProb, alternatives: [] }, before + offset),
    );
    // The reason is set with the last token and with no earlier one.
    return piece({ choice: index, text: part.text, tokens, finishReason: choice.finishReason });
  }

  /** Scores whole choices, so that every shown token comes with its alternatives. */
  async *#withAlternatives(
    request: PreparedCompletion,
    choices: readonly Choice[],
    promptBytes: number,
  ): AsyncGenerator<CompleteResponse> {
    const { tokenizer, model } = this.#modules.served;
    const before = request.echo ? promptBytes : 0;
    for (const [index, choice] of choices.entries()) {
      const all = Int32Array.of(...request.prompt, ...choice.tokens);
      const scored = await scoreTokens(model, all, request.logProbs ?? 0);
      const shown = choice.held.flatMap((part) => part.tokens);
      const tokens = shown.map(({ offset }, position) =>
        describeToken(tokenizer, scored[request.prompt.length + position]!, before + offset),
      );
      const text = choice.held.map((part) => part.text).join("");
      yield piece({ choice: index, text, tokens, finishReason: choice.finishReason });
    }
  }

  /** Signs and stores a receipt of every choice. */
  async #issue(
    request: PreparedCompletion,
    completionId: string,
    { beacon, firstIndex }: { beacon: Beacon; firstIndex: number },
    choices: readonly Choice[],
    fingerprints: Fingerprints,
  ): Promise<void> {
    const { served, receipts, hotkey, clock } = this.#modules;
    const { temperature, topK, topP, stopTokens, prompt } = request;
    for (const [index, choice] of choices.entries()) {
      const { tokens, logProbs } = choice;
      const endsByToken = stopTokens.includes(tokens.at(-1)!);
      // A stop string cuts the answer, not the draw: the statement says how many tokens were drawn.
      const maxNewTokens = endsByToken ? request.maxNewTokens : tokens.length;
      const rolloutIndex = firstIndex + index;
      const taken = fingerprints[index]?.subarray(0, tokens.length * defaultFingerprintDims);
      const receipt = buildReceipt(
        {
          requestId: completionId,
          checkpointRoot: served.root,
          sampling: samplingParameters({
            temperature,
            topK,
            topP,
            maxNewTokens,
            stopTokenIds: stopTokens,
          }),
          promptTokens: prompt,
          beaconBlock: beacon.block,
          beacon: beacon.randomness,
          rolloutIndex,
          model: served.id,
          issuedAtMs: clock.nowMs(),
        },
        {
          tokens,
          logProbs,
          fingerprints:
            taken ?? (await this.#replayFingerprints(request, beacon, rolloutIndex, tokens)),
        },
        hotkey,
      );
      await receipts.put(completionId, index, receipt);
    }
  }

  /** Fingerprints of a completion whose batch was cut short: the same bits, by one prefill. */
  async #replayFingerprints(
    request: PreparedCompletion,
    beacon: Beacon,
    rolloutIndex: number,
    tokens: readonly number[],
  ): Promise<Int8Array> {
    const { served } = this.#modules;
    const { prompt, temperature, topK, topP } = request;
    const key = {
      beacon: beacon.randomness,
      checkpointRoot: served.root,
      promptTokens: prompt,
      rolloutIndex,
    };
    const completion = Int32Array.from(tokens);
    const [replay] = await served.model.replay(
      [{ prompt, completion, temperature, topK, topP, samplingSeed: samplingSeed(key) }],
      { fingerprint: this.#fingerprint(beacon) },
    );
    return replay!.fingerprints!;
  }
}

function newChoices(request: PreparedCompletion, { tokenizer }: ServedModel): Choice[] {
  return Array.from({ length: request.n }, () => ({
    text: new SequenceText({ tokenizer, stops: request.stops }),
    tokens: [],
    logProbs: [],
    held: [],
    finishReason: "",
  }));
}

/** Takes a token into its choice and returns what can be shown now. */
function take(
  choice: Choice,
  token: number,
  logProb: number,
  request: PreparedCompletion,
): TextPiece[] {
  choice.tokens.push(token);
  choice.logProbs.push(logProb);
  const shown = choice.text.add(token, logProb);
  if (shown.stopped) {
    choice.finishReason = "stop";
    return [shown];
  }
  const isStop = request.stopTokens.includes(token);
  const isFull = choice.tokens.length === request.maxNewTokens;
  if (!isStop && !isFull) return shown.text === "" && shown.tokens.length === 0 ? [] : [shown];
  choice.finishReason = isStop ? "stop" : "length";
  const rest = choice.text.finish();
  return [
    { text: shown.text + rest.text, tokens: [...shown.tokens, ...rest.tokens], stopped: isStop },
  ];
}

function piece(value: {
  choice: number;
  text: string;
  tokens: TokenLogProb[];
  finishReason: string;
}): CompleteResponse {
  const message = create(CompletionPieceSchema, value);
  return create(CompleteResponseSchema, { item: { case: "piece", value: message } });
}
