/** Measured use of one task between two moments; whole units. */
export interface MeterSample {
  readonly fromMs: number;
  readonly toMs: number;
  readonly cpuMicros: number;
  readonly peakRssBytes: number;
  /** Position in the node's sequence, from 1, never reused. */
  readonly sequence: number;
}

/** Sum of the samples of one task on one node. */
export interface Usage {
  readonly cpuMicros: number;
  readonly wallMillis: number;
  readonly peakRssBytes: number;
  readonly sampleCount: number;
}

/** Nothing used. */
export const noUsage: Usage = { cpuMicros: 0, wallMillis: 0, peakRssBytes: 0, sampleCount: 0 };

/** Whether a sample is added, and the reason when it is not. */
export type MeterVerdict =
  | { readonly counted: true; readonly usage: Usage }
  | { readonly counted: false; readonly reason: "repeated" | "malformed" };

/** The longest span that one sample may cover; longer ones are malformed. */
export const sampleSpanMsMax = 24 * 3_600_000;

/**
 * Adds a sample once: a sequence at or below the last one counted for the node is a repetition after
 * a reconnection. Amounts that are negative, fractional or that no machine could have used (more
 * than 4096 cores) are malformed and count nothing.
 */
export function countSample(usage: Usage, sample: MeterSample, lastSequence: number): MeterVerdict {
  if (!isWellFormed(sample)) return { counted: false, reason: "malformed" };
  if (sample.sequence <= lastSequence) return { counted: false, reason: "repeated" };
  return {
    counted: true,
    usage: {
      cpuMicros: usage.cpuMicros + sample.cpuMicros,
      wallMillis: usage.wallMillis + (sample.toMs - sample.fromMs),
      peakRssBytes: Math.max(usage.peakRssBytes, sample.peakRssBytes),
      sampleCount: usage.sampleCount + 1,
    },
  };
}

function isWellFormed(sample: MeterSample): boolean {
  const { fromMs, toMs, cpuMicros, peakRssBytes, sequence } = sample;
  const amounts = [fromMs, toMs, cpuMicros, peakRssBytes, sequence];
  if (!amounts.every((amount) => Number.isSafeInteger(amount) && amount >= 0)) return false;
  const spanMs = toMs - fromMs;
  return sequence > 0 && spanMs >= 0 && spanMs <= sampleSpanMsMax && cpuMicros <= cpuMax(spanMs);
}

/** 4096 cores for the span, with a second of slack for clock granularity. */
function cpuMax(spanMs: number): number {
  return (spanMs + 1_000) * 1_000 * 4_096;
}

/** Joins two samples of one task that follow each other, so that a full buffer loses no amount. */
export function mergeSamples(earlier: MeterSample, later: MeterSample): MeterSample {
  return {
    fromMs: earlier.fromMs,
    toMs: later.toMs,
    cpuMicros: earlier.cpuMicros + later.cpuMicros,
    peakRssBytes: Math.max(earlier.peakRssBytes, later.peakRssBytes),
    sequence: later.sequence,
  };
}
