import type { CompletionPiece, TokenLogProb } from "@covenant/contracts/basilica";
import type { RunEvent, RunIds } from "./completion-run.ts";
import type { CompletionLogProbs } from "./format.ts";
import { chatLogProbs, completionLogProbs, joinCompletionLogProbs, usageOf } from "./format.ts";
import type { OpenAiRequest } from "./request.ts";
import { CharacterCounter } from "./token-text.ts";

/** Which of the two endpoints answers. */
export type AnswerKind = "chat" | "completion";

interface Choice {
  text: string;
  tokens: TokenLogProb[];
  logProbs: CompletionLogProbs[];
  finishReason: string;
  readonly counter: CharacterCounter;
}

/** Builds whole answers and stream chunks of one request from what comes in. */
export class Answer {
  readonly #kind: AnswerKind;
  readonly #request: OpenAiRequest;
  readonly #ids: RunIds;
  readonly #createdSeconds: number;
  readonly #choices: Choice[];
  #promptTokens = 0;
  #completionTokens = 0;
  #receiptCount = 0;

  constructor(options: { kind: AnswerKind; request: OpenAiRequest; ids: RunIds; nowMs: number }) {
    this.#kind = options.kind;
    this.#request = options.request;
    this.#ids = options.ids;
    this.#createdSeconds = Math.floor(options.nowMs / 1_000);
    const count = options.request.prompts.length * options.request.n;
    this.#choices = Array.from({ length: count }, () => {
      const counter = new CharacterCounter();
      return { text: "", tokens: [], logProbs: [], finishReason: "stop", counter };
    });
  }

  /** Takes an event in, for the whole answer. */
  add(event: RunEvent): void {
    if (event.type === "summary") {
      this.#promptTokens += event.summary.promptTokens;
      this.#completionTokens += event.summary.completionTokens;
      if (event.summary.receiptAvailable) this.#receiptCount += 1;
      return;
    }
    const choice = this.#choices[event.index]!;
    const { piece } = event;
    choice.text += piece.text;
    choice.tokens.push(...piece.tokens);
    if (this.#wantsTables) choice.logProbs.push(this.#table(piece, choice));
    if (piece.finishReason !== "") choice.finishReason = piece.finishReason;
  }

  /** The answer to a request that does not stream. */
  whole(): object {
    const choices = this.#choices.map((choice, index) => ({
      index,
      ...this.#wholeText(choice),
      finish_reason: choice.finishReason,
      logprobs: this.#wholeLogProbs(choice),
    }));
    const object = this.#kind === "chat" ? "chat.completion" : "text_completion";
    return { ...this.#frame(object), choices, usage: this.usage(), ...this.receipts() };
  }

  /** Chunks that a piece leads to; `first` says whether its choice begins with it. */
  chunk(event: RunEvent & { type: "piece" }, first: boolean): object {
    const { piece, index } = event;
    const choice = this.#choices[index]!;
    const finish = piece.finishReason === "" ? null : piece.finishReason;
    const role = first ? { role: "assistant" } : {};
    const text =
      this.#kind === "chat" ? { delta: { ...role, content: piece.text } } : { text: piece.text };
    const logprobs = this.#wantsTables ? this.#pieceLogProbs(piece, choice) : null;
    const choices = [{ index, ...text, logprobs, finish_reason: finish }];
    return { ...this.#frame(this.#chunkObject), choices, ...this.#usagePlaceholder() };
  }

  /** The last chunk, when usage or receipts are asked for. */
  lastChunk(): object | undefined {
    const usage = this.#request.includeUsage ? { usage: this.usage() } : {};
    const extra = { ...usage, ...this.receipts() };
    if (Object.keys(extra).length === 0) return undefined;
    return { ...this.#frame(this.#chunkObject), choices: [], ...extra };
  }

  usage() {
    return usageOf(this.#promptTokens, this.#completionTokens);
  }

  /** Where the receipts are; empty when none were asked for or kept. */
  receipts(): object {
    if (!this.#request.wantReceipt || this.#receiptCount === 0) return {};
    const { n } = this.#request;
    const receipts = this.#choices.map((_, index) => {
      const id = this.#ids.completionIds[Math.floor(index / n)]!;
      const choice = index % n;
      const query = choice === 0 ? "" : `?choice=${choice}`;
      return { index, receipt_id: id, receipt_url: `/v1/receipts/${id}${query}` };
    });
    const [{ receipt_id, receipt_url } = { receipt_id: "", receipt_url: "" }] = receipts;
    return { covenant: { receipt_id, receipt_url, receipts } };
  }

  get #wantsTables(): boolean {
    return this.#request.logProbs !== undefined;
  }

  get #chunkObject(): string {
    return this.#kind === "chat" ? "chat.completion.chunk" : "text_completion";
  }

  #frame(object: string) {
    return { id: this.#ids.id, object, created: this.#createdSeconds, model: this.#request.model };
  }

  #wholeText(choice: Choice): object {
    if (this.#kind === "completion") return { text: choice.text };
    return { message: { role: "assistant", content: choice.text, refusal: null } };
  }

  #wholeLogProbs(choice: Choice): object | null {
    if (!this.#wantsTables) return null;
    if (this.#kind === "chat") return chatLogProbs(choice.tokens);
    return joinCompletionLogProbs(choice.logProbs);
  }

  #pieceLogProbs(piece: CompletionPiece, choice: Choice): object {
    return this.#kind === "chat" ? chatLogProbs(piece.tokens) : this.#table(piece, choice);
  }

  #table(piece: CompletionPiece, choice: Choice): CompletionLogProbs {
    return completionLogProbs(piece.tokens, choice.counter, this.#request.logProbs ?? 0);
  }

  #usagePlaceholder(): object {
    return this.#request.includeUsage ? { usage: null } : {};
  }
}
