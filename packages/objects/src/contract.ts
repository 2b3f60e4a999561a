// What every ObjectStore must do, as tests. Each implementation runs them: `objectStoreContract("file", makeStore)`.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { ObjectStore } from "./object-store.ts";

/** Makes an empty store whose bucket "writable" may be written and whose bucket "readonly" may not. */
export type MakeStore = () => Promise<ObjectStore>;

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const coded = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

/** Registers the contract's tests under `name` with node:test. */
export function objectStoreContract(name: string, makeStore: MakeStore): void {
  const it = (what: string, run: (store: ObjectStore) => Promise<void>): void => {
    test(`${name}: ${what}`, async () => run(await makeStore()));
  };
  readingAndWriting(it);
  refusals(it);
  listing(it);
}

type It = (what: string, run: (store: ObjectStore) => Promise<void>) => void;

function readingAndWriting(it: It): void {
  it("returns what was put, whole and in ranges", async (store) => {
    const data = bytes("0123456789");
    const { sha256 } = await store.put("writable", "a/b", data);
    assert.deepEqual(Buffer.from(sha256), createHash("sha256").update(data).digest());
    const get = async (offset?: number, length?: number): Promise<string> =>
      new TextDecoder().decode(
        await store.get("writable", "a/b", { offset, length, maxBytes: 10 }),
      );
    assert.equal(await get(), "0123456789");
    assert.equal(await get(3), "3456789");
    assert.equal(await get(3, 2), "34");
    assert.equal(await get(8, 100), "89");
    assert.equal(await get(10), "");
    await assert.rejects(get(11), coded("COV_OBJECT_RANGE"));
    await assert.rejects(get(-1), coded("COV_OBJECT_RANGE"));
    await assert.rejects(get(0, 0.5), coded("COV_OBJECT_RANGE"));
  });

  it("replaces an object, or refuses to when asked", async (store) => {
    await store.put("writable", "k", bytes("one"));
    await store.put("writable", "k", bytes("second"));
    await assert.rejects(
      store.put("writable", "k", bytes("three"), { ifAbsent: true }),
      coded("COV_OBJECT_EXISTS"),
    );
    assert.equal((await store.head("writable", "k"))?.sizeBytes, 6);
    await store.put("writable", "new", new Uint8Array(), { ifAbsent: true });
    assert.equal((await store.head("writable", "new"))?.sizeBytes, 0);
  });

  it("lets exactly one of many exclusive writers win", async (store) => {
    const writers = Array.from({ length: 8 }, (_, i) =>
      store.put("writable", "race", bytes(`writer ${i}`), { ifAbsent: true }),
    );
    const results = await Promise.allSettled(writers);
    const winner = results.findIndex((result) => result.status === "fulfilled");
    assert.equal(results.filter((result) => result.status === "fulfilled").length, 1);
    const data = await store.get("writable", "race", { maxBytes: 100 });
    assert.equal(new TextDecoder().decode(data), `writer ${winner}`);
  });

  it("keeps a key and keys below it apart", async (store) => {
    await store.put("writable", "a", bytes("leaf"));
    await store.put("writable", "a/b", bytes("below"));
    await store.remove("writable", "a");
    assert.equal(await store.head("writable", "a"), undefined);
    assert.equal((await store.head("writable", "a/b"))?.sizeBytes, 5);
  });
}

function refusals(it: It): void {
  it("reports what does not exist", async (store) => {
    const missing = store.get("writable", "none", { maxBytes: 1 });
    await assert.rejects(missing, coded("COV_OBJECT_NOT_FOUND"));
    assert.equal(await store.head("writable", "none/below"), undefined);
    await store.remove("writable", "none");
    await store.put("writable", "a", bytes("x"));
    const below = store.get("writable", "a/below", { maxBytes: 1 });
    await assert.rejects(below, coded("COV_OBJECT_NOT_FOUND"));
  });

  it("refuses to return more than asked for", async (store) => {
    await store.put("writable", "big", new Uint8Array(100));
    const get = (length?: number) => store.get("writable", "big", { length, maxBytes: 10 });
    await assert.rejects(get(), coded("COV_OBJECT_TOO_LARGE"));
    await assert.rejects(get(11), coded("COV_OBJECT_TOO_LARGE"));
    assert.equal((await get(10)).byteLength, 10);
  });

  it("writes only where it may", async (store) => {
    const put = store.put("readonly", "k", bytes("x"));
    await assert.rejects(put, coded("COV_OBJECT_READ_ONLY"));
    await assert.rejects(store.remove("readonly", "k"), coded("COV_OBJECT_READ_ONLY"));
  });

  it("refuses names that could leave the bucket", async (store) => {
    const keys = [
      "",
      "/",
      "/a",
      "a/",
      "a//b",
      ".",
      "..",
      "../b",
      "a/../b",
      "a/./b",
      "a\\b",
      "a\0b",
    ];
    for (const key of [...keys, "é", "a b", "a~", "x".repeat(255), "a/".repeat(600)]) {
      for (const attempt of [
        () => store.put("writable", key, bytes("x")),
        () => store.get("writable", key, { maxBytes: 1 }),
        () => store.head("writable", key),
        () => store.remove("writable", key),
      ]) {
        await assert.rejects(attempt, coded("COV_OBJECT_BAD_NAME"), JSON.stringify(key));
      }
    }
    for (const bucket of ["", "a", "..", "a..b", "A-bucket", "a/b", ".staging", "x".repeat(64)]) {
      await assert.rejects(store.head(bucket, "k"), coded("COV_OBJECT_BAD_NAME"), bucket);
      await assert.rejects(store.list(bucket, { limit: 1 }), coded("COV_OBJECT_BAD_NAME"), bucket);
    }
  });
}

function listing(it: It): void {
  it("lists in key order, page by page, by prefix", async (store) => {
    const keys = ["a", "a-b", "a.b", "a/b", "a/b/c", "a/b-c", "a0", "b/1", "b/10", "b/2"];
    for (const key of [...keys].reverse()) await store.put("writable", key, bytes(key));
    assert.deepEqual(await store.list("writable", { limit: 100 }), {
      keys: [...keys].sort(),
      more: false,
    });
    assert.deepEqual(await pages(store, "", 3), [...keys].sort());
    assert.deepEqual(await pages(store, "b/1", 1), ["b/1", "b/10"]);
    assert.deepEqual(await pages(store, "a/", 2), ["a/b", "a/b-c", "a/b/c"]);
    assert.deepEqual(await store.list("no-such-bucket", { limit: 1 }), { keys: [], more: false });
  });
}

/** All keys of a prefix, read in pages of `limit`. */
async function pages(store: ObjectStore, prefix: string, limit: number): Promise<string[]> {
  const keys: string[] = [];
  for (;;) {
    const page = await store.list("writable", { prefix, limit, after: keys.at(-1) });
    keys.push(...page.keys);
    if (!page.more) return keys;
    assert.equal(page.keys.length, limit);
  }
}
