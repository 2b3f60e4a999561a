import assert from "node:assert/strict";
import { test } from "node:test";
import { applyDelta, decodeActivations, encodeActivations, encodeDelta } from "./index.ts";
import { isKernelError, noise } from "./test-support.ts";

/** The bf16 bytes of values, cut off. */
function bf16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
}

test("a delta leads from one policy to the next and nowhere else", async () => {
  const values = noise(20_000, 0.02, 1);
  const base = bf16(values);
  const next = bf16(values.map((value) => value + 2e-6));
  const delta = await encodeDelta(base, next);
  assert.deepEqual(await encodeDelta(base, next, { threads: 2 }), delta);
  assert.ok(delta.length < next.length / 4);
  assert.deepEqual(await applyDelta(base, delta), next);
  await assert.rejects(applyDelta(next, delta), isKernelError("COV_DELTA_WRONG_BASE"));
  await assert.rejects(applyDelta(base.slice(2), delta), isKernelError("COV_DELTA_WRONG_COUNT"));
  await assert.rejects(applyDelta(base, delta.slice(0, -1)), isKernelError("COV_DELTA_WRONG_SIZE"));
  await assert.rejects(
    encodeDelta(base, next.slice(2)),
    isKernelError("COV_KERNELS_INVALID_ARGUMENT"),
  );
});

test("activations come back within what their codec promises", async () => {
  const values = noise(3 * 100, 1, 2);
  for (const [codec, bound] of [
    ["bf16", 0.004],
    ["int8", 0.02],
    ["int4", 0.7],
  ] as const) {
    const options = { codec, rows: 3, width: 100 };
    const payload = await encodeActivations(values, options);
    const decoded = await decodeActivations(payload, options);
    decoded.forEach((value, i) => {
      assert.ok(Math.abs(value - values[i]!) <= bound * (1 + Math.abs(values[i]!)));
    });
    const malformed = isKernelError("COV_KERNELS_MALFORMED");
    await assert.rejects(decodeActivations(payload, { ...options, rows: 4 }), malformed);
    await assert.rejects(decodeActivations(payload.slice(1), options), malformed);
  }
  const broken = values.slice();
  broken[7] = Number.NaN;
  await assert.rejects(
    encodeActivations(broken, { codec: "int8", rows: 3, width: 100 }),
    isKernelError("COV_KERNELS_NON_FINITE"),
  );
});
