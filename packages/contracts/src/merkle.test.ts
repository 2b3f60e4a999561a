import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import vectors from "../../../test/vectors/contracts/merkle.json" with { type: "json" };
import { concatBytes, fromHex, sha256, toHex } from "./hash.ts";
import { merklePath, merkleRoot, verifyMerklePath } from "./merkle.ts";

const itemsArbitrary = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 40 });

test("the definition, written out for three items", () => {
  const [a, b, c] = ["a", "b", "c"].map((text) => new TextEncoder().encode(text));
  const leaf = (item: Uint8Array) => sha256(concatBytes(Uint8Array.of(0), item));
  const node = (l: Uint8Array, r: Uint8Array) => sha256(concatBytes(Uint8Array.of(1), l, r));
  const expected = node(node(leaf(a!), leaf(b!)), leaf(c!));
  assert.deepEqual(merkleRoot([a!, b!, c!]), expected);
  const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  assert.equal(toHex(merkleRoot([])), empty);
});

test("every item's path verifies at its place and nowhere else", () => {
  fc.assert(
    fc.property(itemsArbitrary, fc.nat(), fc.nat(), (items, i, j) => {
      const index = i % items.length;
      const other = j % items.length;
      const root = merkleRoot(items);
      const path = merklePath(items, index);
      const item = items[index]!;
      assert.ok(verifyMerklePath(root, item, index, items.length, path));
      if (other !== index) {
        assert.ok(
          !verifyMerklePath(root, concatBytes(item, Uint8Array.of(0)), index, items.length, path),
        );
        // Elsewhere it can only hold where the same item stands in the same surroundings.
        if (verifyMerklePath(root, item, other, items.length, path)) {
          assert.deepEqual(items[other], item);
        }
      }
    }),
  );
});

test("a changed bit anywhere is noticed", () => {
  fc.assert(
    fc.property(itemsArbitrary, fc.nat(), fc.nat(), fc.nat(255), (items, i, k, bit) => {
      const index = i % items.length;
      const root = merkleRoot(items);
      const path = merklePath(items, index);
      const flip = (bytes: Uint8Array) => {
        const copy = bytes.slice();
        copy[(bit >> 3) % copy.length]! ^= 1 << (bit & 7);
        return copy;
      };
      assert.ok(!verifyMerklePath(flip(root), items[index]!, index, items.length, path));
      if (path.length > 0) {
        const bad = path.map((hash, at) => (at === k % path.length ? flip(hash) : hash));
        assert.ok(!verifyMerklePath(root, items[index]!, index, items.length, bad));
        assert.ok(!verifyMerklePath(root, items[index]!, index, items.length, path.slice(1)));
      }
      assert.ok(!verifyMerklePath(root, items[index]!, index, items.length, [...path, root]));
    }),
  );
});

test("nonsense positions are false or refused, never a crash", () => {
  const items = [Uint8Array.of(1), Uint8Array.of(2)];
  const root = merkleRoot(items);
  for (const [index, count] of [
    [-1, 2],
    [2, 2],
    [0.5, 2],
    [0, Number.NaN],
    [0, 2 ** 40],
  ]) {
    assert.equal(verifyMerklePath(root, items[0]!, index!, count!, []), false);
  }
  assert.throws(() => merklePath(items, 2), RangeError);
});

test("published vectors hold", () => {
  for (const { items, root, paths } of vectors.trees) {
    const bytes = items.map(fromHex);
    assert.equal(toHex(merkleRoot(bytes)), root);
    assert.deepEqual(
      bytes.map((_, index) => merklePath(bytes, index).map(toHex)),
      paths,
    );
  }
});
