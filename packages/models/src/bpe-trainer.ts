// Trains byte-level BPE: repeatedly merges the most frequent pair of neighbouring tokens within pre-tokens.
import { BYTE_TO_CHAR, splitPreTokens, toByteChars } from "./byte-level.ts";
import {
  makeTokenizerJson,
  SPECIAL_TOKENS,
  type TokenizerJson,
  VOCAB_SIZE_MAX,
} from "./tokenizer-json.ts";

/** Options of {@link trainTokenizer}. */
export interface TrainTokenizerOptions {
  /** Special tokens, 256 bytes and merges together; fewer when the text runs out of repeated pairs. */
  vocabSize: number;
  /** Get the first ids, in this order. */
  specialTokens?: readonly string[];
}

/** A pair seen once only saves nothing when merged. */
const PAIR_COUNT_MIN = 2;

/**
 * Trains a tokenizer; the same text gives the same vocabulary everywhere. Ties between pairs go to the lowest pair
 * of ids. Equal to the BPE trainer of Hugging Face `tokenizers` with the byte alphabet and a minimum count of 2.
 */
export function trainTokenizer(
  text: string | readonly string[],
  options: TrainTokenizerOptions,
): TokenizerJson {
  const specialTokens = options.specialTokens ?? SPECIAL_TOKENS;
  const base = specialTokens.length + 256;
  if (options.vocabSize < base || options.vocabSize > VOCAB_SIZE_MAX) {
    throw new RangeError(`vocabSize must be ${base} to ${VOCAB_SIZE_MAX}`);
  }
  // The byte alphabet is in code point order, as in other implementations, not in byte order.
  const tokens = [...specialTokens, ...[...BYTE_TO_CHAR].sort()];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const trainer = new PairCounts(countWords(text, ids));
  const merges: [string, string][] = [];
  while (tokens.length < options.vocabSize) {
    const pair = trainer.best();
    if (!pair) break;
    const [left, right] = [tokens[pair.left]!, tokens[pair.right]!];
    let merged = ids.get(left + right);
    if (merged === undefined) {
      merged = tokens.length;
      tokens.push(left + right);
      ids.set(left + right, merged);
    }
    merges.push([left, right]);
    trainer.merge(pair.left, pair.right, merged);
  }
  return makeTokenizerJson(Object.fromEntries(ids), merges, specialTokens);
}

interface Word {
  tokens: number[];
  count: number;
}

function countWords(text: string | readonly string[], ids: ReadonlyMap<string, number>): Word[] {
  const counts = new Map<string, number>();
  for (const part of typeof text === "string" ? [text] : text) {
    for (const word of splitPreTokens(part)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts].map(([word, count]) => ({
    tokens: [...toByteChars(word)].map((char) => ids.get(char)!),
    count,
  }));
}

/** Pairs packed as left * 2^16 + right: numeric order is pair order. */
const pack = (left: number, right: number): number => left * VOCAB_SIZE_MAX + right;

/** Counts of all neighbouring pairs, kept exact while words change. */
class PairCounts {
  readonly #words: Word[];
  readonly #counts = new Map<number, number>();
  /** Words that may hold a pair; a word whose pair has gone since stays listed. */
  readonly #where = new Map<number, Set<number>>();

  constructor(words: Word[]) {
    this.#words = words;
    words.forEach((_, index) => {
      this.#add(index, 1);
    });
  }

  /** The most frequent pair, the lowest one among equals; undefined when none repeats. */
  best(): { left: number; right: number } | undefined {
    let bestPair = -1;
    let bestCount = PAIR_COUNT_MIN - 1;
    for (const [pair, count] of this.#counts) {
      if (count > bestCount || (count === bestCount && bestPair >= 0 && pair < bestPair)) {
        bestPair = pair;
        bestCount = count;
      }
    }
    if (bestPair < 0) return undefined;
    return { left: Math.floor(bestPair / VOCAB_SIZE_MAX), right: bestPair % VOCAB_SIZE_MAX };
  }

  /** Replaces the pair by `merged` in every word, from left to right. */
  merge(left: number, right: number, merged: number): void {
    const pair = pack(left, right);
    for (const index of this.#where.get(pair) ?? []) {
      this.#add(index, -1);
      const word = this.#words[index]!;
      word.tokens = mergePair(word.tokens, left, right, merged);
      this.#add(index, 1);
    }
    this.#where.delete(pair);
    this.#counts.delete(pair);
  }

  #add(index: number, sign: 1 | -1): void {
    const { tokens, count } = this.#words[index]!;
    for (let i = 0; i + 1 < tokens.length; i++) {
      const pair = pack(tokens[i]!, tokens[i + 1]!);
      this.#counts.set(pair, (this.#counts.get(pair) ?? 0) + sign * count);
      if (sign < 0) continue;
      const words = this.#where.get(pair);
      if (words) words.add(index);
      else this.#where.set(pair, new Set([index]));
    }
  }
}

function mergePair(tokens: number[], left: number, right: number, merged: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i] === left && tokens[i + 1] === right) {
      result.push(merged);
      i++;
    } else {
      result.push(tokens[i]!);
    }
  }
  return result;
}
