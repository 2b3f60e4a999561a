import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  aggregate,
  applyMerged,
  applyUpdate,
  type CompressOptions,
  compress,
  decode,
  KernelError,
  sparseSize,
  stateRoot,
  type TensorInfo,
  tensorTable,
  tensorTableRoot,
} from "./index.ts";
import { isKernelError, noise, tinyShape } from "./test-support.ts";

const format = { keepPerChunk: 64, mode: "2bit" } as const;

function table(...lengths: number[]): TensorInfo[] {
  let offset = 0;
  return lengths.map((length, index) => {
    const tensor = { name: `tensor.${index}`, shape: [length], offset, length };
    offset += length;
    return tensor;
  });
}

function options(tensors: TensorInfo[], seed = 1): CompressOptions {
  const last = tensors.at(-1);
  const count = last ? last.offset + last.length : 0;
  return {
    base: noise(count, 1, seed),
    current: noise(count, 1, seed + 1),
    errorFeedback: noise(count, 0.1, seed + 2),
    tensors,
    errorDecay: 0.95,
    ...format,
  };
}

test("what is sent plus what is kept is what was to be sent", async () => {
  const tensors = table(5000, 128);
  const input = options(tensors);
  const before = input.errorFeedback.slice();
  const body = await compress(input);
  const { indices, values } = await decode(body, tensors, format);
  assert.equal(body.length, sparseSize(tensors, format).bodyBytes);
  assert.equal(indices.length, sparseSize(tensors, format).keptMax);
  const sent = new Map(Array.from(indices, (index, at) => [index, values[at]!]));
  for (let i = 0; i < before.length; i++) {
    // One rounding of the fused multiply-add and one of the subtraction lie between the two sides.
    const a = 0.95 * before[i]! + Math.fround(input.base[i]! - input.current[i]!);
    assert.ok(
      Math.abs(a - (sent.get(i) ?? 0) - input.errorFeedback[i]!) <= 1e-6 * (1 + Math.abs(a)),
    );
  }
});

test("the one-bit mode is smaller", async () => {
  const tensors = table(4096);
  const two = await compress(options(tensors));
  const one = await compress({ ...options(tensors), mode: "1bit" });
  assert.equal(two.length, 12 + 4 + 81);
  assert.equal(one.length, 12 + 2 + 73);
  await assert.rejects(decode(one, tensors, format), isKernelError("COV_SPARSE_WRONG_MODE"));
});

test("bad input is refused with a code and a sentence", async () => {
  const tensors = table(4096, 100);
  const nan = options(tensors);
  nan.base[4100] = Number.NaN;
  await assert.rejects(compress(nan), (error) => {
    assert.ok(error instanceof KernelError);
    assert.equal(error.code, "COV_SPARSE_NON_FINITE");
    assert.match(error.message, /tensor\.1/);
    return true;
  });
  const invalid = isKernelError("COV_KERNELS_INVALID_ARGUMENT");
  await assert.rejects(compress({ ...options(tensors), keepPerChunk: 0 }), invalid);
  await assert.rejects(compress({ ...options(tensors), keepPerChunk: 1.5 }), invalid);
  await assert.rejects(compress({ ...options(tensors), mode: "3bit" as "2bit" }), invalid);
  await assert.rejects(compress({ ...options(tensors), errorDecay: 2 }), invalid);
  await assert.rejects(compress({ ...options(tensors), current: new Float32Array(3) }), invalid);
  const doubles = new Float64Array(4196) as unknown as Float32Array;
  await assert.rejects(compress({ ...options(tensors), base: doubles }), invalid);
  const wrong = [{ name: "a", shape: [5], offset: 0, length: 6 }];
  await assert.rejects(decode(new Uint8Array(12), wrong, format), invalid);
  const negative = [{ name: "a", shape: [5], offset: -1, length: 5 }];
  await assert.rejects(decode(new Uint8Array(12), negative, format), invalid);
  const unnamed = [{ name: "x".repeat(200), shape: [5], offset: 0, length: 5 }];
  assert.throws(() => tensorTableRoot(unnamed), invalid);
  await assert.rejects(
    decode(new Uint8Array(0), tensors, format),
    isKernelError("COV_SPARSE_WRONG_SIZE"),
  );
});

test("merging is the same from any number of threads, and applying it is subtraction", async () => {
  const tensors = table(9000, 64);
  const updates = [await compress(options(tensors, 10)), await compress(options(tensors, 20))];
  const weights = Float32Array.of(1, 1);
  const input = { updates, weights, tensors, clipToMedianNorm: true, ...format } as const;
  const merged = await aggregate({ ...input, rule: "contributors" });
  assert.deepEqual(await aggregate({ ...input, rule: "contributors", threads: 2 }), merged);
  assert.notDeepEqual(await aggregate({ ...input, rule: "all" }), merged);

  const alone = { ...input, updates: [updates[0]!], weights: Float32Array.of(1) } as const;
  const direct = noise(9064, 1, 3);
  const through = direct.slice();
  await applyUpdate(direct, updates[0]!, tensors, 0.5, format);
  const one = await aggregate({ ...alone, rule: "all" });
  assert.deepEqual(await applyMerged(through, one, tensors, 0.5), { nonFiniteTensors: [] });
  assert.deepEqual(through, direct);
  const reject = isKernelError("COV_SPARSE_WRONG_MAGIC");
  await assert.rejects(applyMerged(through, updates[0]!, tensors, 1), reject);
  await assert.rejects(
    aggregate({ ...input, weights: Float32Array.of(1), rule: "all" }),
    isKernelError("COV_KERNELS_INVALID_ARGUMENT"),
  );
});

const sha256 = (...parts: Uint8Array[]) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
};

/** The Merkle tree by its words. */
function merkle(items: Uint8Array[]): Uint8Array {
  let level: Uint8Array[] = items.map((item) => sha256(Uint8Array.of(0), item));
  while (level.length > 1) {
    const pairs: Uint8Array[] = [];
    for (let i = 0; i < level.length; i += 2) {
      const right = level[i + 1];
      pairs.push(right ? sha256(Uint8Array.of(1), level[i]!, right) : level[i]!);
    }
    level = pairs;
  }
  return level[0]!;
}

test("roots are those of the definition", async () => {
  const tensors: TensorInfo[] = [
    { name: "a.weight", shape: [700, 1000], offset: 0, length: 700_000 },
    { name: "b", shape: [10], offset: 700_000, length: 10 },
  ];
  const parameters = noise(700_010, 1, 1);
  const tableRoot = sha256(new TextEncoder().encode("a.weight\t700x1000\nb\t10\n"));
  assert.deepEqual(tensorTableRoot(tensors), tableRoot);
  const bytes = new Uint8Array(parameters.buffer);
  const pieces = [
    [0, 1_048_576],
    [1_048_576, 2_097_152],
    [2_097_152, 2_800_000],
    [2_800_000, 2_800_040],
  ].map(([from, to]) => sha256(bytes.subarray(from, to)));
  assert.deepEqual(await stateRoot(parameters, tensors), merkle([tableRoot, ...pieces]));
});

test("the table of a tied model ends with the final norm", () => {
  const tensors = tensorTable(tinyShape);
  assert.equal(tensors.length, 2 + 9 * tinyShape.layerCount);
  assert.equal(tensors.at(-1)?.name, "model.norm.weight");
  assert.deepEqual(tensors[0]?.shape, [64, 32]);
  assert.throws(() => tensorTable({ ...tinyShape, headCount: 3 }), KernelError);
});

test("the golden vector of the C++ tests decodes here as well", async () => {
  const file = new URL("../../../test/vectors/sparse/two-bit.bin", import.meta.url);
  const data = readFileSync(file);
  const lengths = Array.from({ length: data.readUInt32LE(16) }, (_, t) =>
    Number(data.readBigUInt64LE(20 + 8 * t)),
  );
  const count = lengths.reduce((sum, length) => sum + length, 0);
  let at = 20 + 8 * lengths.length;
  const floats = () => {
    const values = Float32Array.from({ length: count }, (_, i) => data.readFloatLE(at + 4 * i));
    at += 4 * count;
    return values;
  };
  const [base, current, errorFeedback, after] = [floats(), floats(), floats(), floats()];
  const errorDecay = data.readFloatLE(12);
  const tensors = table(...lengths);
  const body = await compress({ base, current, errorFeedback, tensors, errorDecay, ...format });
  assert.deepEqual(body, new Uint8Array(data.subarray(at + 8)));
  assert.deepEqual(errorFeedback, after);
});
