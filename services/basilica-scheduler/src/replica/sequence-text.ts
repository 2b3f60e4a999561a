import type { Tokenizer } from "@covenant/models";

/** A token of a completion as it becomes visible. */
export interface VisibleToken {
  readonly token: number;
  readonly logProb: number;
  /** Byte offset of its text in the completion. */
  readonly offset: number;
}

/** What can be shown after a token. */
export interface TextPiece {
  readonly text: string;
  readonly tokens: VisibleToken[];
  /** A stop string has appeared: the completion ends before it. */
  readonly stopped: boolean;
}

/**
 * Turns tokens into text as they come: whole characters only, and nothing that may yet turn out to
 * be the beginning of a stop string. Special tokens show no text.
 */
export class SequenceText {
  readonly #tokenizer: Tokenizer;
  readonly #stops: readonly string[];
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #encoder = new TextEncoder();
  #held = "";
  /** Bytes of everything decoded, shown or held. */
  #bytes = 0;
  /** Bytes shown. */
  #shownBytes = 0;
  #pending: VisibleToken[] = [];

  constructor(options: { tokenizer: Tokenizer; stops: readonly string[] }) {
    this.#tokenizer = options.tokenizer;
    this.#stops = options.stops;
  }

  /** Takes the next token in. */
  add(token: number, logProb: number): TextPiece {
    this.#pending.push({ token, logProb, offset: this.#bytes });
    if (!this.#tokenizer.isSpecial(token)) {
      const bytes = this.#tokenizer.decodeBytes([token]);
      this.#bytes += bytes.length;
      this.#held += this.#decoder.decode(bytes, { stream: true });
    }
    const at = this.#findStop();
    if (at >= 0) return this.#cutAt(at);
    return this.#show(this.#held.length - this.#tailLength(), false);
  }

  /** Everything that was held back, when the completion has ended. */
  finish(): TextPiece {
    this.#held += this.#decoder.decode();
    return this.#show(this.#held.length, true);
  }

  #findStop(): number {
    const found = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    return found.length === 0 ? -1 : Math.min(...found);
  }

  #cutAt(at: number): TextPiece {
    const text = this.#held.slice(0, at);
    const endBytes = this.#shownBytes + this.#encoder.encode(text).length;
    const tokens = this.#pending.filter((token) => token.offset < endBytes);
    this.#held = "";
    this.#pending = [];
    return { text, tokens, stopped: true };
  }

  #show(length: number, all: boolean): TextPiece {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    this.#shownBytes += this.#encoder.encode(text).length;
    const isShown = ({ offset }: VisibleToken): boolean =>
      all || offset < this.#shownBytes || (this.#held === "" && offset <= this.#shownBytes);
    const tokens = this.#pending.filter(isShown);
    this.#pending = this.#pending.filter((token) => !isShown(token));
    return { text, tokens, stopped: false };
  }

  /** Length of the longest end of the held text that begins a stop string. */
  #tailLength(): number {
    let longest = 0;
    for (const stop of this.#stops) {
      const most = Math.min(stop.length - 1, this.#held.length);
      for (let length = most; length > longest; length -= 1) {
        if (stop.startsWith(this.#held.slice(-length))) longest = length;
      }
    }
    return longest;
  }
}
