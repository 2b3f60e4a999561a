// Checks tokenizer files that come from outside before anything is built from them.
import { CHAR_TO_BYTE } from "./byte-level.ts";
import { DataError } from "./errors.ts";
import type { TokenizerConfig, TokenizerJson } from "./tokenizer-json.ts";
import { CHAT_TEMPLATE, END_OF_TEXT, makeTokenizerConfig } from "./tokenizer-json.ts";

/** Largest vocabulary that is opened. */
const VOCAB_MAX = 1 << 20;
const ADDED_TOKENS_MAX = 4096;
const TOKEN_CHARS_MAX = 4096;
const CHAT_TEMPLATE_CHARS_MAX = 1 << 16;

function require(condition: boolean, message: string): asserts condition {
  if (!condition) throw new DataError("COV_TOKENIZER_INVALID", message);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Returns the value as a tokenizer that decodes by bytes, with ids 0 to n-1, or throws `COV_TOKENIZER_INVALID`. */
export function checkTokenizerJson(value: unknown): TokenizerJson {
  require(isObject(value) && isObject(value.model), "tokenizer.json has no model");
  const { model } = value;
  require(model.type === "BPE" && model.byte_fallback !== true, "Only byte-level BPE is read");
  require(usesByteLevel(value.decoder), "The decoder is not ByteLevel");
  require(isObject(model.vocab) && Array.isArray(model.merges), "No vocabulary or merges");
  const added = checkAddedTokens(value.added_tokens);
  const vocab = Object.entries(model.vocab);
  const addedContents = new Set(added.values());
  const size = vocab.length + [...addedContents].filter((t) => !hasOwn(model.vocab, t)).length;
  require(size <= VOCAB_MAX, `More than ${VOCAB_MAX} tokens`);
  const ids = new Set<number>();
  for (const [token, id] of vocab) {
    require(isId(id, size) && !ids.has(id), `Id of ${JSON.stringify(token)} is out of place`);
    require(token.length <= TOKEN_CHARS_MAX, "A token is too long");
    const spelled = addedContents.has(token) || [...token].every((char) => CHAR_TO_BYTE.has(char));
    require(spelled, `Token ${JSON.stringify(token)} is not in the byte alphabet`);
    ids.add(id);
  }
  for (const [id, content] of added) {
    const own = hasOwn(model.vocab, content) ? model.vocab[content] : undefined;
    const placed = own === undefined ? isId(id, size) && !ids.has(id) : own === id;
    require(placed, `Id of added token ${JSON.stringify(content)} is out of place`);
    ids.add(id);
  }
  require(ids.size === size, "Ids are not contiguous");
  checkMerges(model.merges, model.vocab);
  return value as unknown as TokenizerJson;
}

/** Fills defaults; throws `COV_TOKENIZER_INVALID` when a field that is used has the wrong form. */
export function checkTokenizerConfig(value: unknown): TokenizerConfig {
  require(isObject(value), "tokenizer_config.json is not an object");
  const template = value.chat_template ?? CHAT_TEMPLATE;
  require(typeof template === "string" &&
    template.length <= CHAT_TEMPLATE_CHARS_MAX, "chat_template is not a text of acceptable length");
  // Older files write tokens as objects.
  const eos = isObject(value.eos_token) ? value.eos_token.content : value.eos_token;
  require(eos === undefined || typeof eos === "string", "eos_token is not a text");
  return {
    ...makeTokenizerConfig(),
    ...value,
    chat_template: template,
    eos_token: eos ?? END_OF_TEXT,
  };
}

function hasOwn(vocab: unknown, token: string): boolean {
  return Object.hasOwn(vocab as object, token);
}

function isId(id: unknown, size: number): id is number {
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) < size;
}

function usesByteLevel(decoder: unknown): boolean {
  if (!isObject(decoder)) return false;
  if (decoder.type === "ByteLevel") return true;
  return Array.isArray(decoder.decoders) && decoder.decoders.some(usesByteLevel);
}

function checkAddedTokens(value: unknown): Map<number, string> {
  const tokens = value ?? [];
  require(Array.isArray(tokens) && tokens.length <= ADDED_TOKENS_MAX, "Bad added_tokens");
  const added = new Map<number, string>();
  for (const token of tokens) {
    require(isObject(token), "An added token is not an object");
    const { id, content } = token;
    require(typeof content === "string" && content.length > 0, "An added token has no content");
    require(isId(id, VOCAB_MAX) && !added.has(id), "An added token has no id of its own");
    added.set(id, content);
  }
  return added;
}

function checkMerges(merges: unknown[], vocab: Record<string, unknown>): void {
  require(merges.length <= VOCAB_MAX, "Too many merges");
  for (const merge of merges) {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    const good =
      Array.isArray(pair) &&
      pair.length === 2 &&
      typeof pair[0] === "string" &&
      typeof pair[1] === "string" &&
      hasOwn(vocab, pair[0] + pair[1]);
    require(good, "A merge does not lead to a token");
  }
}
