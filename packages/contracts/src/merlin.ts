/**
 * Merlin transcripts over STROBE-128 (merlin.cool, strobe.sourceforge.io v1.0.2), only the operations
 * that sr25519 signatures need. Here because the sr25519 library fixes the signing context.
 */
import { keccakP } from "@noble/hashes/sha3.js";
import { u32, utf8ToBytes } from "@noble/hashes/utils.js";

const RATE = 166;
const FLAG_I = 1;
const FLAG_A = 2;
const FLAG_C = 4;
const FLAG_M = 16;

/** A transcript: absorbs labelled messages, yields labelled challenges that depend on all of them. */
export class Transcript {
  readonly #state: Uint8Array;
  #position = 0;
  #begin = 0;

  constructor(label: string | Transcript) {
    if (label instanceof Transcript) {
      this.#state = label.#state.slice();
      this.#position = label.#position;
      this.#begin = label.#begin;
      return;
    }
    this.#state = new Uint8Array(200);
    this.#state.set([1, RATE + 2, 1, 0, 1, 96]);
    this.#state.set(utf8ToBytes("STROBEv1.0.2"), 6);
    keccakP(u32(this.#state));
    this.#operate(FLAG_M | FLAG_A, utf8ToBytes("Merlin v1.0"));
    this.append("dom-sep", utf8ToBytes(label));
  }

  /** Absorbs a message under a label. */
  append(label: string, message: Uint8Array): void {
    this.#label(label, message.length);
    this.#operate(FLAG_A, message);
  }

  /** Squeezes `length` bytes bound to everything absorbed before. */
  challenge(label: string, length: number): Uint8Array {
    this.#label(label, length);
    return this.#squeeze(length);
  }

  /** `length` bytes bound to the transcript, a secret and more randomness; the transcript stays. */
  witness(label: string, length: number, secret: Uint8Array, random: Uint8Array): Uint8Array {
    const fork = new Transcript(this);
    fork.#label(label, secret.length);
    fork.#key(secret);
    fork.#operate(FLAG_M | FLAG_A, utf8ToBytes("rng"));
    fork.#key(random);
    fork.#operate(FLAG_M | FLAG_A, littleEndian32(length));
    return fork.#squeeze(length);
  }

  #label(label: string, length: number): void {
    this.#operate(FLAG_M | FLAG_A, utf8ToBytes(label));
    this.#absorb(littleEndian32(length));
  }

  #operate(flags: number, data: Uint8Array): void {
    this.#start(flags);
    this.#absorb(data);
  }

  #start(flags: number): void {
    const previous = this.#begin;
    this.#begin = this.#position + 1;
    this.#absorb(Uint8Array.of(previous, flags));
    if (flags & FLAG_C && this.#position !== 0) this.#permute();
  }

  #absorb(data: Uint8Array): void {
    for (const byte of data) {
      this.#state[this.#position++]! ^= byte;
      if (this.#position === RATE) this.#permute();
    }
  }

  #key(data: Uint8Array): void {
    this.#start(FLAG_A | FLAG_C);
    for (const byte of data) {
      this.#state[this.#position++] = byte;
      if (this.#position === RATE) this.#permute();
    }
  }

  #squeeze(length: number): Uint8Array {
    this.#start(FLAG_I | FLAG_A | FLAG_C);
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      bytes[i] = this.#state[this.#position]!;
      this.#state[this.#position++] = 0;
      if (this.#position === RATE) this.#permute();
    }
    return bytes;
  }

  #permute(): void {
    this.#state[this.#position]! ^= this.#begin;
    this.#state[this.#position + 1]! ^= 0x04;
    this.#state[RATE + 1]! ^= 0x80;
    keccakP(u32(this.#state));
    this.#position = 0;
    this.#begin = 0;
  }
}

function littleEndian32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}
