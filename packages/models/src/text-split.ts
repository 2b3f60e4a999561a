// Cuts documents into pieces for training and pieces held out, in contiguous stretches spread over the whole text.

/** Pieces of documents, in order. No piece is in both. */
export interface SplitText {
  train: string[];
  heldOut: string[];
}

/** The held-out share is taken from this many places, so that it resembles all of the text. */
const STRETCHES_MAX = 16;
/** A stretch shorter than this would hold out less than a few sentences. */
const STRETCH_CHARS_MIN = 4096;

/**
 * Cuts at line ends. The text is divided into equal stretches; the last `heldOutShare` of each is held out. Whole
 * neighbouring lines are either seen or not, so that a held-out loss measures generalisation and not memory.
 */
export function splitText(documents: readonly string[], heldOutShare: number): SplitText {
  if (!(heldOutShare >= 0 && heldOutShare < 1)) throw new RangeError("heldOutShare: 0 to below 1");
  const chars = documents.reduce((sum, document) => sum + document.length, 0);
  const count = Math.max(1, Math.min(STRETCHES_MAX, Math.floor(chars / STRETCH_CHARS_MIN)));
  const stretchChars = chars / count;
  const split: SplitText = { train: [], heldOut: [] };
  let at = 0;
  for (const document of documents) {
    let piece = "";
    let pieceIsHeldOut = false;
    for (const line of document.match(/[^\n]*\n|[^\n]+$/g) ?? []) {
      const isHeldOut = (at % stretchChars) / stretchChars >= 1 - heldOutShare;
      if (isHeldOut !== pieceIsHeldOut && piece !== "") {
        (pieceIsHeldOut ? split.heldOut : split.train).push(piece);
        piece = "";
      }
      pieceIsHeldOut = isHeldOut;
      piece += line;
      at += line.length;
    }
    if (piece !== "") (pieceIsHeldOut ? split.heldOut : split.train).push(piece);
  }
  return split;
}
