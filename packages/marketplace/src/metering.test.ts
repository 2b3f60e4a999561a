import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { MeterSample, Usage } from "./metering.ts";
import { countSample, mergeSamples, noUsage } from "./metering.ts";

const sizes = fc.array(
  fc.record({ wallMs: fc.nat(5_000), cpuMicros: fc.nat(1_000_000), peakRssBytes: fc.nat() }),
  { minLength: 1, maxLength: 20 },
);

function toSamples(
  list: { wallMs: number; cpuMicros: number; peakRssBytes: number }[],
): MeterSample[] {
  let nowMs = 0;
  return list.map(({ wallMs, cpuMicros, peakRssBytes }, index) => {
    const fromMs = nowMs;
    nowMs += wallMs;
    return { fromMs, toMs: nowMs, cpuMicros, peakRssBytes, sequence: index + 1 };
  });
}

function sum(samples: readonly MeterSample[]): Usage {
  let usage = noUsage;
  let last = 0;
  for (const sample of samples) {
    const verdict = countSample(usage, sample, last);
    if (!verdict.counted) continue;
    usage = verdict.usage;
    last = sample.sequence;
  }
  return usage;
}

test("samples sent again after a reconnection are counted once", () => {
  fc.assert(
    fc.property(sizes, fc.nat(20), (list, resendFrom) => {
      const samples = toSamples(list);
      assert.deepEqual(sum([...samples, ...samples.slice(resendFrom)]), sum(samples));
      assert.equal(
        sum(samples).cpuMicros,
        list.reduce((total, { cpuMicros }) => total + cpuMicros, 0),
      );
    }),
  );
});

test("merging in a full buffer loses no amount", () => {
  fc.assert(
    fc.property(sizes, (list) => {
      const samples = toSamples(list);
      const merged = sum([samples.reduce((a, b) => mergeSamples(a, b))]);
      const { sampleCount: _, ...whole } = sum(samples);
      assert.deepEqual({ ...merged, sampleCount: undefined }, { ...whole, sampleCount: undefined });
    }),
  );
});

test("amounts that cannot be are refused and change nothing", () => {
  const good = { fromMs: 0, toMs: 1000, cpuMicros: 10, peakRssBytes: 1, sequence: 1 };
  const bad: Partial<MeterSample>[] = [
    { toMs: -1 },
    { cpuMicros: -5 },
    { cpuMicros: 0.5 },
    { cpuMicros: Number.MAX_SAFE_INTEGER },
    { sequence: 0 },
    { toMs: 10 ** 12 },
    { peakRssBytes: Number.NaN },
  ];
  for (const change of bad) {
    const verdict = countSample(noUsage, { ...good, ...change }, 0);
    assert.deepEqual(verdict, { counted: false, reason: "malformed" }, JSON.stringify(change));
  }
  assert.ok(countSample(noUsage, good, 0).counted);
});
