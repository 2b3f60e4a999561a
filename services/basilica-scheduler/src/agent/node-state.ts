import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** Numbers claimed on disk at once, so that one write serves many reports. */
const blockSize = 1_000;

/**
 * Gives the node's sequence numbers: ascending and never reused, not even by the next life of the
 * agent. Numbers may be skipped. Throws when the file cannot be written.
 */
export function openSequence(path: string): () => number {
  mkdirSync(dirname(path), { recursive: true });
  let claimed = readClaimed(path);
  let next = claimed + 1;
  return () => {
    if (next > claimed) {
      claimed = next + blockSize - 1;
      writeFileSync(`${path}.new`, JSON.stringify({ sequence: claimed }), { flush: true });
      renameSync(`${path}.new`, path);
    }
    const sequence = next;
    next += 1;
    return sequence;
  };
}

function readClaimed(path: string): number {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
  const { sequence } = JSON.parse(text) as { sequence?: unknown };
  if (typeof sequence !== "number" || !Number.isSafeInteger(sequence)) {
    throw new Error(`${path} does not hold a sequence number`);
  }
  return sequence;
}
