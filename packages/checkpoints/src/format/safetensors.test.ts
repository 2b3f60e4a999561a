import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { fromBfloat16, toBfloat16 } from "./bfloat16.ts";
import { CheckpointError } from "./errors.ts";
import { DTYPE_BYTES, type Dtype, readSafetensors, writeSafetensors } from "./safetensors.ts";

const invalid = { code: "COV_CHECKPOINT_TENSORS_INVALID" };

/** A file with this header and this many data bytes. */
function fileOf(header: unknown, dataBytes = 0, headerBytes?: bigint): Uint8Array {
  const json = new TextEncoder().encode(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, headerBytes ?? BigInt(json.length), true);
  file.set(json, 8);
  return file;
}

test("what is written is read back, whatever the names, types and shapes", () => {
  const tensor = fc
    .record({
      name: fc.oneof(
        fc.string({ maxLength: 20 }),
        fc.constantFrom("__proto__", "0", "constructor"),
      ),
      dtype: fc.constantFrom(...(Object.keys(DTYPE_BYTES) as Dtype[])),
      shape: fc.array(fc.nat({ max: 5 }), { maxLength: 3 }),
      seed: fc.nat({ max: 255 }),
    })
    .filter(({ name }) => name !== "__metadata__")
    .map(({ seed, ...rest }) => {
      const count = rest.shape.reduce((a, b) => a * b, 1) * DTYPE_BYTES[rest.dtype];
      return { ...rest, data: Uint8Array.from({ length: count }, (_, i) => seed + i) };
    });
  const tensors = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 6 });
  fc.assert(
    fc.property(tensors, (written) => {
      const file = writeSafetensors(written, { format: "pt" });
      const { tensors: read, metadata } = readSafetensors(file);
      const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
      assert.deepEqual(
        read.map((item) => ({ ...item, data: item.data.slice() })).sort(byName),
        [...written].sort(byName),
      );
      assert.deepEqual(metadata, { format: "pt" });
      const headerBytes = new DataView(file.buffer).getBigUint64(0, true);
      assert.equal(headerBytes % 8n, 0n);
    }),
  );
});

test("inconsistent headers are refused", () => {
  const tensor = (begin: number, end: number, shape = [end - begin], dtype = "U8") => ({
    dtype,
    shape,
    data_offsets: [begin, end],
  });
  const huge = Number.MAX_SAFE_INTEGER;
  const cases: [string, Uint8Array][] = [
    ["empty", new Uint8Array()],
    ["cut length", new Uint8Array(7)],
    ["length beyond the file", fileOf("{}", 0, 3n)],
    ["length of 2^64 - 1", fileOf("{}", 0, 2n ** 64n - 1n)],
    ["zero length", fileOf("{}", 0, 0n)],
    ["array", fileOf("[]")],
    ["cut JSON", fileOf('{"a":')],
    ["bad UTF-8", fileOf("{}").fill(0xff, 9)],
    ["overlap", fileOf({ a: tensor(0, 4), b: tensor(2, 6) }, 6)],
    ["same place", fileOf({ a: tensor(0, 4), b: tensor(0, 4) }, 4)],
    ["hole", fileOf({ a: tensor(0, 4), b: tensor(6, 8) }, 8)],
    ["not from the start", fileOf({ a: tensor(2, 4) }, 4)],
    ["after the end", fileOf({ a: tensor(0, 4) }, 3)],
    ["before the end", fileOf({ a: tensor(0, 4) }, 5)],
    ["reversed", fileOf({ a: tensor(4, 0, [4]) }, 4)],
    ["negative", fileOf({ a: tensor(-4, 0, [4]) }, 4)],
    ["fraction", fileOf({ a: tensor(0, 0.5, [1]) }, 1)],
    ["shape and offsets differ", fileOf({ a: tensor(0, 4, [5]) }, 4)],
    ["dtype and offsets differ", fileOf({ a: tensor(0, 4, [4], "F32") }, 4)],
    ["unknown dtype", fileOf({ a: tensor(0, 4, [4], "toString") }, 4)],
    ["product overflows", fileOf({ a: tensor(0, 4, [huge, huge]) }, 4)],
    ["product overflows to zero size", fileOf({ a: tensor(0, 0, [2 ** 32, 2 ** 32, 0.5]) })],
    ["rank", fileOf({ a: tensor(0, 1, new Array(9).fill(1)) }, 1)],
    ["null", fileOf({ a: null })],
    ["no fields", fileOf({ a: {} })],
    ["metadata of numbers", fileOf({ __metadata__: { a: 1 } })],
  ];
  for (const [name, file] of cases) assert.throws(() => readSafetensors(file), invalid, name);
});

test("random damage is either refused with a code or leaves a consistent file", () => {
  const data = Uint8Array.from({ length: 24 }, (_, i) => i);
  const good = writeSafetensors([
    { name: "a", dtype: "F32", shape: [2, 2], data: data.subarray(0, 16) },
    { name: "b", dtype: "BF16", shape: [4], data: data.subarray(16) },
  ]);
  const damage = fc.array(fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(damage, fc.nat({ max: good.length }), (changes, cut) => {
      const file = good.slice(0, Math.max(cut, good.length - 3));
      for (const [at, value] of changes) if (at < file.length) file[at] = value;
      try {
        const { tensors } = readSafetensors(file);
        const bytes = tensors.reduce((sum, tensor) => sum + tensor.data.length, 0);
        assert.ok(bytes <= file.length - 8);
      } catch (error) {
        assert.ok(error instanceof CheckpointError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});

test("BF16 rounds to nearest, ties to even, and keeps what is special", () => {
  const bits = (values: number[]): Float32Array =>
    new Float32Array(Uint32Array.from(values).buffer);
  const words = (bytes: Uint8Array): number[] => [...new Uint16Array(bytes.buffer)];
  const cases: [number, number][] = [
    [0x3f800000, 0x3f80],
    [0x3f808000, 0x3f80], // tie, kept part even: down
    [0x3f818000, 0x3f82], // tie, kept part odd: up
    [0x3f808001, 0x3f81],
    [0x3f807fff, 0x3f80],
    [0x7f7fffff, 0x7f80], // largest finite rounds to infinity
    [0x7f800000, 0x7f80],
    [0xff800000, 0xff80],
    [0x80000000, 0x8000],
    [0x00000001, 0x0000],
    [0x7f800001, 0x7fc0], // signalling NaN stays NaN
    [0xffc00000, 0xffc0],
  ];
  assert.deepEqual(
    words(toBfloat16(bits(cases.map(([from]) => from)))),
    cases.map(([, to]) => to),
  );
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const widened = new Float32Array(65536);
  fromBfloat16(new Uint8Array(all.buffer), widened);
  const again = words(toBfloat16(widened));
  all.forEach((word, i) => {
    const isNaNWord = (word & 0x7fff) > 0x7f80;
    assert.equal(again[i], isNaNWord ? word | 0x40 : word);
  });
});
