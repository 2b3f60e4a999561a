// The files tokenizer.json and tokenizer_config.json: what is written, and what is accepted from outside.
import { SPLIT_PATTERN } from "./byte-level.ts";

/** A token added outside of the merges, matched in text before splitting. */
export interface AddedToken {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

/** The content of tokenizer.json as this project writes it: byte-level BPE. */
export interface TokenizerJson {
  version: "1.0";
  truncation: null;
  padding: null;
  added_tokens: AddedToken[];
  normalizer: null;
  pre_tokenizer: object;
  post_processor: null;
  decoder: object;
  model: {
    type: "BPE";
    dropout: null;
    unk_token: null;
    continuing_subword_prefix: null;
    end_of_word_suffix: null;
    fuse_unk: boolean;
    byte_fallback: boolean;
    ignore_merges: boolean;
    vocab: Record<string, number>;
    merges: [string, string][];
  };
}

/** The content of tokenizer_config.json that matters here. */
export interface TokenizerConfig {
  tokenizer_class: string;
  eos_token: string;
  pad_token: string;
  model_max_length: number;
  clean_up_tokenization_spaces: boolean;
  chat_template: string;
}

/** End of a document; also ends a completion that nothing else ends. */
export const END_OF_TEXT = "<|endoftext|>";

/** Special tokens every run has, in id order from 0. */
export const SPECIAL_TOKENS: readonly string[] = [
  END_OF_TEXT,
  "<|user|>",
  "<|assistant|>",
  "<|end|>",
];

/** Jinja source of the chat template: "<|role|>content<|end|>" for each message. */
export const CHAT_TEMPLATE =
  "{% for message in messages %}" +
  "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}" +
  "{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/** Largest vocabulary accepted: ids of data set shards are 16 bits wide. */
export const VOCAB_SIZE_MAX = 65_536;

/** Assembles tokenizer.json around a trained vocabulary. `vocab` includes the special tokens. */
export function makeTokenizerJson(
  vocab: Record<string, number>,
  merges: [string, string][],
  specialTokens: readonly string[],
): TokenizerJson {
  const byteLevel = { add_prefix_space: false, trim_offsets: false, use_regex: false };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: vocab[content]!,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: SPLIT_PATTERN }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", ...byteLevel },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", ...byteLevel },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  };
}

/** The tokenizer_config.json that goes with a trained tokenizer. */
export function makeTokenizerConfig(modelMaxLength = 1_000_000): TokenizerConfig {
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    eos_token: END_OF_TEXT,
    pad_token: END_OF_TEXT,
    model_max_length: modelMaxLength,
    clean_up_tokenization_spaces: false,
    chat_template: CHAT_TEMPLATE,
  };
}
