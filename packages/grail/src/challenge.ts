import { philox4x32 } from "@covenant/contracts";
import { domainHash, u32le } from "./seeds.ts";

/** Positions opened of a completion, or all if it is shorter. */
export const challengedPositions = 16;

/** What decides which positions are opened. */
export interface ChallengeKey {
  /** Made after the commitment: randomness of the challenge block, or for receipts the commitment. */
  randomness: Uint8Array;
  recordRoot: Uint8Array;
  rolloutIndex: number;
  /** Tokens of the completion. */
  count: number;
  /** How many to open; `challengedPositions` where nobody says otherwise. */
  open?: number;
}

/**
 * Distinct positions to open, ascending: a partial Fisher-Yates shuffle of 0..count-1 whose draw i is
 * Philox block i of the challenge key, scaled to the remaining range by multiplication and floor.
 */
export function challengePositions(key: ChallengeKey): number[] {
  const open = Math.min(key.open ?? challengedPositions, key.count);
  const digest = domainHash(
    "covenant.challenge.v1",
    key.randomness,
    key.recordRoot,
    u32le(key.rolloutIndex),
  );
  const words = new DataView(digest.buffer, digest.byteOffset, 16);
  const philoxKey: [number, number] = [words.getUint32(0, true), words.getUint32(4, true)];
  const moved = new Map<number, number>();
  const positions: number[] = [];
  for (let i = 0; i < open; i++) {
    const counter: [number, number, number, number] = [
      i,
      0,
      words.getUint32(8, true),
      words.getUint32(12, true),
    ];
    const [draw] = philox4x32(philoxKey, counter);
    // Both factors are integers and the product stays below 2^53: exact on every machine.
    const pick = i + Math.floor((draw * (key.count - i)) / 2 ** 32);
    positions.push(moved.get(pick) ?? pick);
    moved.set(pick, moved.get(i) ?? i);
  }
  return positions.sort((a, b) => a - b);
}
