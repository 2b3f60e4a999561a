// Tokenizer: text to ids and back. Encoding is Hugging Face's own code; decoding works on bytes, so that it streams.
import { Tokenizer as Encoder } from "@huggingface/tokenizers";
import { CHAR_TO_BYTE } from "./byte-level.ts";
import { type ChatMessage, compileChatTemplate, type RenderOptions } from "./chat.ts";
import { DataError } from "./errors.ts";
import { checkTokenizerConfig, checkTokenizerJson } from "./tokenizer-check.ts";
import {
  END_OF_TEXT,
  makeTokenizerConfig,
  type TokenizerConfig,
  type TokenizerJson,
} from "./tokenizer-json.ts";

/** A file of a model directory. */
export interface NamedFile {
  path: string;
  data: Uint8Array;
}

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /**
   * Whether special tokens written out in the text become those tokens (as in Hugging Face, the default), or stay
   * plain text. Text from outside that must not end documents or take roles is encoded with false.
   */
  special?: boolean;
}

const TOKENIZER_BYTES_MAX = 64 << 20;

/** Byte-level BPE with special tokens and a chat template. Immutable; safe to share. */
export class Tokenizer {
  /** What it was made from. */
  readonly json: TokenizerJson;
  readonly config: TokenizerConfig;
  /** Number of ids: the model's vocabulary size. */
  readonly vocabSize: number;
  /** Id of the token that ends a document. */
  readonly eosId: number;
  readonly #encoder: Encoder;
  readonly #plainEncoder: Encoder;
  readonly #bytes: readonly Uint8Array[];
  readonly #special: ReadonlyMap<string, number>;
  readonly #specialIds: ReadonlySet<number>;
  readonly #render: (messages: readonly ChatMessage[], options?: RenderOptions) => string;

  /** Opens a parsed or unparsed tokenizer.json; `COV_TOKENIZER_INVALID` when it is not usable byte-level BPE. */
  static fromJson(json: TokenizerJson | string, config?: TokenizerConfig | string): Tokenizer {
    const parsed = checkTokenizerJson(parse(json));
    return new Tokenizer(
      parsed,
      config === undefined ? makeTokenizerConfig() : checkTokenizerConfig(parse(config)),
    );
  }

  /** Opens tokenizer.json and, when present, tokenizer_config.json out of a model directory's files. */
  static fromFiles(files: readonly NamedFile[]): Tokenizer {
    const text = (path: string): string | undefined => {
      const file = files.find((candidate) => candidate.path === path);
      return file && new TextDecoder().decode(file.data);
    };
    const json = text("tokenizer.json");
    if (json === undefined) throw new DataError("COV_TOKENIZER_INVALID", "No tokenizer.json");
    return Tokenizer.fromJson(json, text("tokenizer_config.json"));
  }

  private constructor(json: TokenizerJson, config: TokenizerConfig) {
    this.json = json;
    this.config = config;
    this.#encoder = new Encoder(json, config);
    this.#plainEncoder = new Encoder({ ...json, added_tokens: [] }, config);
    this.#special = new Map(json.added_tokens.map((token) => [token.content, token.id]));
    this.#specialIds = new Set(this.#special.values());
    this.#bytes = tokenBytes(json);
    this.vocabSize = this.#bytes.length;
    this.eosId = this.specialId(config.eos_token ?? END_OF_TEXT);
    this.#render = compileChatTemplate(config);
  }

  /** Ids of a text. */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    if (text === "") return new Int32Array();
    const encoder = options.special === false ? this.#plainEncoder : this.#encoder;
    return Int32Array.from(encoder.encode(text, { add_special_tokens: false }).ids);
  }

  /** Text of ids; bytes that are not UTF-8 become U+FFFD. Special tokens are written out unless skipped. */
  decode(ids: ArrayLike<number>, options: { skipSpecial?: boolean } = {}): string {
    const kept = options.skipSpecial
      ? Array.from(ids).filter((id) => !this.#specialIds.has(id))
      : ids;
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.decodeBytes(kept));
  }

  /** The exact bytes of ids: what a streaming reader collects until they are whole characters. */
  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    const parts = Array.from(ids, (id) => this.#tokenBytes(id));
    const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      result.set(part, at);
      at += part.length;
    }
    return result;
  }

  /** How many bytes of text an id stands for; 0 for special tokens. */
  byteLength(id: number): number {
    return this.#specialIds.has(id) ? 0 : this.#tokenBytes(id).length;
  }

  /** Id of a special token; `COV_TOKENIZER_INVALID` when the tokenizer has none of that name. */
  specialId(name: string): number {
    const id = this.#special.get(name);
    if (id === undefined) throw new DataError("COV_TOKENIZER_INVALID", `No special token ${name}`);
    return id;
  }

  /** True for ids of special tokens. */
  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }

  /** A conversation as text, by the chat template. */
  renderChat(messages: readonly ChatMessage[], options?: RenderOptions): string {
    return this.#render(messages, options);
  }

  /**
   * Ids of a conversation. Special tokens that a message's content spells out stay plain text: nobody takes a role
   * by typing it. Otherwise equal to `apply_chat_template` of `transformers`.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: RenderOptions): Int32Array {
    const spelled = messages.some(({ content }) =>
      [...this.#special.keys()].some((token) => content.includes(token)),
    );
    if (!spelled) return this.encode(this.#render(messages, options));
    // Content is rendered as a mark that no text contains, and put back as plain text.
    const marked = messages.map((message, i) => ({ ...message, content: `\uE000${i}\uE001` }));
    const parts = this.#render(marked, options).split(/\uE000(\d+)\uE001/);
    return Int32Array.from(
      parts.flatMap((part, i) => [
        ...(i % 2 === 0
          ? this.encode(part)
          : this.encode(messages[Number(part)]!.content, { special: false })),
      ]),
    );
  }

  /** tokenizer.json and tokenizer_config.json as files. */
  toFiles(): NamedFile[] {
    const file = (path: string, content: object): NamedFile => ({
      path,
      data: new TextEncoder().encode(`${JSON.stringify(content, undefined, 2)}\n`),
    });
    return [file("tokenizer.json", this.json), file("tokenizer_config.json", this.config)];
  }

  #tokenBytes(id: number): Uint8Array {
    const bytes = this.#bytes[id];
    if (!bytes) throw new RangeError(`Token id ${id} is not below ${this.vocabSize}`);
    return bytes;
  }
}

function parse(json: object | string): unknown {
  if (typeof json !== "string") return json;
  if (json.length > TOKENIZER_BYTES_MAX) {
    throw new DataError("COV_TOKENIZER_INVALID", "Tokenizer file is too large");
  }
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new DataError("COV_TOKENIZER_INVALID", `Not JSON: ${(error as Error).message}`);
  }
}

/** Bytes of every id. Added tokens are their own text, others are spelled in the byte alphabet. */
function tokenBytes(json: TokenizerJson): Uint8Array[] {
  const bytes: Uint8Array[] = [];
  for (const [token, id] of Object.entries(json.model.vocab)) {
    bytes[id] = Uint8Array.from(token, (char) => CHAR_TO_BYTE.get(char) ?? 0);
  }
  for (const { id, content } of json.added_tokens) bytes[id] = new TextEncoder().encode(content);
  return bytes;
}
