import type { Alternative, TokenLogProb } from "@covenant/contracts/basilica";

const encoder = new TextEncoder();

/**
 * The name of a token in log-probability tables: its text, or "bytes:\xe2\x82" when its bytes are
 * not whole characters, so that different tokens never share a name.
 */
export function tokenName(token: TokenLogProb | Alternative): string {
  if (isWhole(token)) return token.text;
  const hex = Array.from(token.textBytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`);
  return `bytes:${hex.join("")}`;
}

function isWhole(token: TokenLogProb | Alternative): boolean {
  const bytes = encoder.encode(token.text);
  return bytes.length === token.textBytes.length && bytes.every((b, i) => b === token.textBytes[i]);
}

/** Counts characters (code points) of bytes that arrive in pieces. */
export class CharacterCounter {
  #count = 0;

  /** Offset of the next byte in characters: characters that began before it. */
  get offset(): number {
    return this.#count;
  }

  add(bytes: Uint8Array): void {
    // Every character has exactly one byte that is not a continuation byte.
    for (const byte of bytes) if ((byte & 0xc0) !== 0x80) this.#count += 1;
  }
}
