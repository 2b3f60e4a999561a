/**
 * Merkle trees over SHA-256. Leaf = SHA256(0x00 ‖ item), node = SHA256(0x01 ‖ left ‖ right); a node
 * without a sibling moves up unchanged. The prefixes keep a node from passing for an item; the item
 * count is part of verification, because promotion alone would not bind it.
 */
import { bytesEqual, sha256 } from "./hash.ts";

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** Root over the items in order: 32 bytes. The root of no items is SHA256(""). */
export function merkleRoot(items: readonly Uint8Array[]): Uint8Array {
  if (items.length === 0) return sha256();
  let level = items.map(leafHash);
  while (level.length > 1) level = parentLevel(level);
  return level[0]!;
}

/** Siblings from leaf to root of the item at `index`; throws a RangeError outside the items. */
export function merklePath(items: readonly Uint8Array[], index: number): Uint8Array[] {
  if (!Number.isInteger(index) || index < 0 || index >= items.length) {
    throw new RangeError(`No item ${index} among ${items.length}`);
  }
  const path: Uint8Array[] = [];
  let level = items.map(leafHash);
  let position = index;
  while (level.length > 1) {
    const sibling = level[position ^ 1];
    if (sibling) path.push(sibling);
    level = parentLevel(level);
    position >>>= 1;
  }
  return path;
}

/** True exactly when `item` is at `index` among `count` items under `root`. Never throws. */
export function verifyMerklePath(
  root: Uint8Array,
  item: Uint8Array,
  index: number,
  count: number,
  path: readonly Uint8Array[],
): boolean {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(count)) return false;
  if (index < 0 || index >= count || count > 2 ** 31) return false;
  let hash = leafHash(item);
  let used = 0;
  let position = index;
  for (let width = count; width > 1; width = (width + 1) >>> 1) {
    if ((position ^ 1) < width) {
      const sibling = path[used++];
      if (sibling?.length !== 32) return false;
      hash = position & 1 ? sha256(NODE, sibling, hash) : sha256(NODE, hash, sibling);
    }
    position >>>= 1;
  }
  return used === path.length && bytesEqual(hash, root);
}

function leafHash(item: Uint8Array): Uint8Array {
  return sha256(LEAF, item);
}

function parentLevel(level: readonly Uint8Array[]): Uint8Array[] {
  const parents: Uint8Array[] = [];
  for (let i = 0; i < level.length; i += 2) {
    const right = level[i + 1];
    parents.push(right ? sha256(NODE, level[i]!, right) : level[i]!);
  }
  return parents;
}
