import assert from "node:assert/strict";
import { test } from "node:test";
import {
  compress,
  isPackedUpdate,
  packUpdate,
  sparseSize,
  type TensorInfo,
  unpackUpdate,
} from "./index.ts";
import { isKernelError, noise } from "./test-support.ts";

const tensors: TensorInfo[] = [
  { name: "matrix", shape: [200_000], offset: 0, length: 200_000 },
  { name: "norm", shape: [128], offset: 200_000, length: 128 },
];

async function bodyOf(mode: "1bit" | "2bit"): Promise<Uint8Array> {
  const count = 200_128;
  return compress({
    base: noise(count, 1, 1),
    current: noise(count, 1, 2),
    errorFeedback: noise(count, 0.1, 3),
    tensors,
    errorDecay: 0.95,
    keepPerChunk: 64,
    mode,
  });
}

test("a packed update is smaller and comes back exactly", async () => {
  for (const mode of ["1bit", "2bit"] as const) {
    const format = { keepPerChunk: 64, mode };
    const body = await bodyOf(mode);
    const packed = await packUpdate(body, tensors, format);
    assert.ok(packed.length < 0.97 * body.length, `${packed.length} of ${body.length} bytes`);
    assert.ok(isPackedUpdate(packed) && !isPackedUpdate(body));
    assert.deepEqual(await unpackUpdate(packed, tensors, format), body);
    assert.deepEqual(await packUpdate(body, tensors, format, { threads: 2 }), packed);
  }
});

test("what is no packed update of this table is refused with the reason", async () => {
  const format = { keepPerChunk: 64, mode: "2bit" } as const;
  const body = await bodyOf("2bit");
  const packed = await packUpdate(body, tensors, format);
  const refuses = (bytes: Uint8Array, code: string, table = tensors) =>
    assert.rejects(unpackUpdate(bytes, table, format), isKernelError(code));
  await refuses(body, "COV_SPARSE_WRONG_MAGIC");
  await refuses(new Uint8Array(0), "COV_SPARSE_WRONG_SIZE");
  await refuses(packed.subarray(0, -1), "COV_SPARSE_WRONG_SIZE");
  await refuses(packed, "COV_SPARSE_WRONG_TENSOR_COUNT", tensors.slice(0, 1));
  const damaged = packed.slice();
  damaged[16] = 1;
  await refuses(damaged, "COV_SPARSE_NOT_CANONICAL");
  await assert.rejects(
    packUpdate(packed, tensors, format),
    isKernelError("COV_SPARSE_WRONG_MAGIC"),
  );
});

test("a table of another size is refused before its body is written", async () => {
  const format = { keepPerChunk: 64, mode: "2bit" } as const;
  const packed = await packUpdate(await bodyOf("2bit"), tensors, format);
  const longer = [tensors[0]!, { ...tensors[1]!, length: 8_000_000, shape: [8_000_000] }];
  assert.ok(sparseSize(longer, format).bodyBytes > 100_000);
  await assert.rejects(
    unpackUpdate(packed, longer, format),
    isKernelError("COV_SPARSE_WRONG_SIZE"),
  );
});
