// Supervised fine-tuning batches: conversations as tokens, loss on what the assistant says, packed into rows.
import type { Batch } from "@covenant/kernels";
import type { ChatMessage } from "./chat.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A conversation as tokens. */
export interface EncodedChat {
  tokens: Int32Array;
  /** 1 where the token is the assistant's (its closing token included): those are learned. */
  learned: Uint8Array;
}

/**
 * Encodes a conversation by the chat template. The assistant's turns are found by rendering the conversation up
 * to each of them, so any template works that only appends.
 */
export function encodeChat(tokenizer: Tokenizer, messages: readonly ChatMessage[]): EncodedChat {
  const tokens = tokenizer.applyChatTemplate(messages);
  const learned = new Uint8Array(tokens.length);
  messages.forEach((message, i) => {
    if (message.role !== "assistant") return;
    const before = tokenizer.applyChatTemplate(messages.slice(0, i), { addGenerationPrompt: true });
    const through = tokenizer.applyChatTemplate(messages.slice(0, i + 1));
    if (!isPrefix(before, through) || !isPrefix(through, tokens)) {
      throw new RangeError(
        "The chat template does not only append; its turns cannot be told apart",
      );
    }
    learned.fill(1, before.length, through.length);
  });
  return { tokens, learned };
}

function isPrefix(prefix: Int32Array, whole: Int32Array): boolean {
  return prefix.length <= whole.length && prefix.every((id, i) => whole[i] === id);
}

/** Options of {@link packChats}. */
export interface PackOptions {
  /** T: positions per row. */
  sequenceLength: number;
  /** Rows per batch; the last batch may have fewer. */
  batchSize: number;
  /** Fills rows; never a target. Usually the tokenizer's `eosId`. */
  padId: number;
}

/** Batches, and what did not fit. */
export interface PackedChats {
  batches: Batch[];
  /** Conversations longer than a row: left out whole, since a cut answer teaches to stop early. */
  skippedCount: number;
  /** Positions with a target. */
  learnedTokens: number;
}

/**
 * Packs conversations, in order, into rows: each goes behind the one before while it fits. Attention is not cut
 * between neighbours of a row; no target reaches over the seam.
 */
export function packChats(chats: readonly EncodedChat[], options: PackOptions): PackedChats {
  const rows: EncodedChat[][] = [];
  let room = 0;
  let skippedCount = 0;
  for (const chat of chats) {
    // The last token of a conversation is only ever a target, so it needs a position of its own.
    const width = chat.tokens.length;
    if (width > options.sequenceLength) {
      skippedCount += 1;
      continue;
    }
    if (width > room) {
      rows.push([]);
      room = options.sequenceLength;
    }
    rows.at(-1)!.push(chat);
    room -= width;
  }
  const batches: Batch[] = [];
  for (let first = 0; first < rows.length; first += options.batchSize) {
    batches.push(makeBatch(rows.slice(first, first + options.batchSize), options));
  }
  const learnedTokens = batches.reduce(
    (sum, batch) => sum + batch.targets.reduce((count, target) => count + (target >= 0 ? 1 : 0), 0),
    0,
  );
  return { batches, skippedCount, learnedTokens };
}

function makeBatch(rows: EncodedChat[][], options: PackOptions): Batch {
  const width = options.sequenceLength;
  const tokens = new Int32Array(rows.length * width).fill(options.padId);
  const targets = new Int32Array(rows.length * width).fill(-1);
  rows.forEach((row, r) => {
    let at = r * width;
    for (const chat of row) {
      tokens.set(chat.tokens, at);
      for (let i = 1; i < chat.tokens.length; i++) {
        if (chat.learned[i]) targets[at + i - 1] = chat.tokens[i]!;
      }
      at += chat.tokens.length;
    }
  });
  return { tokens, targets, sequences: rows.length, sequenceLength: width };
}

/** Tokens that end an assistant's turn: the closing token of the chat template and the end of text. */
export function stopTokens(tokenizer: Tokenizer): number[] {
  return [tokenizer.eosId, tokenizer.specialId("<|end|>")];
}

/** Text of a completion without the stop token and other special tokens. */
export function completionText(tokenizer: Tokenizer, tokens: ArrayLike<number>): string {
  return tokenizer.decode(tokens, { skipSpecial: true });
}
