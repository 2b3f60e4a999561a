// GPT-2's byte alphabet and the split into pre-tokens, with one change: every digit stands alone.

/**
 * The pattern as written to tokenizer.json (Oniguruma syntax). English clitics, letters with an optional space
 * before, single digits, runs of other characters with an optional space before, and white space whose last
 * character goes to the following word. Digits stand alone so that numbers are read place by place.
 */
export const SPLIT_PATTERN =
  "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Oniguruma's \s is the Unicode property; JavaScript's adds U+FEFF and lacks U+0085, so it is spelled out. */
const SPLIT =
  /'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** Cuts text into pre-tokens; joined they are the text (lone surrogates included). */
export function splitPreTokens(text: string): string[] {
  return text.match(SPLIT) ?? [];
}

/** Character that stands for each byte in vocabularies: printable Latin-1 for itself, the rest from U+0100 on. */
export const BYTE_TO_CHAR: readonly string[] = makeByteToChar();

/** Inverse of {@link BYTE_TO_CHAR}. */
export const CHAR_TO_BYTE: ReadonlyMap<string, number> = new Map(
  BYTE_TO_CHAR.map((char, byte) => [char, byte]),
);

function makeByteToChar(): string[] {
  const chars: string[] = [];
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    chars.push(String.fromCodePoint(printable ? byte : next++));
  }
  return chars;
}

const encoder = new TextEncoder();

/** The UTF-8 bytes of a pre-token as characters of the byte alphabet. */
export function toByteChars(text: string): string {
  let chars = "";
  for (const byte of encoder.encode(text)) chars += BYTE_TO_CHAR[byte];
  return chars;
}
