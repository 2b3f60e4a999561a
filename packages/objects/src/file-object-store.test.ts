import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { objectStoreContract } from "./contract.ts";
import { mapFileError } from "./file-errors.ts";
import { openFileObjectStore } from "./file-object-store.ts";

const scratch = await mkdtemp(join(tmpdir(), "covenant-objects-"));
after(() => rm(scratch, { recursive: true, force: true }));

let count = 0;
const makeRoot = (): string => join(scratch, `root${count++}`);
const coded = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

objectStoreContract("file", async () =>
  openFileObjectStore({ root: makeRoot(), writableBuckets: ["writable"] }),
);

test("file: follows no symbolic link, neither a file's nor a directory's", async () => {
  const root = makeRoot();
  const store = openFileObjectStore({ root, writableBuckets: "all" });
  await store.put("bucket", "inside/k", new Uint8Array(1));
  await mkdir(join(scratch, "outside"));
  await writeFile(join(scratch, "outside", "secret"), "s");
  await symlink(join(scratch, "outside", "secret"), join(root, "bucket", "link"));
  await symlink(join(scratch, "outside"), join(root, "bucket", "way~"));
  for (const key of ["link", "way/secret"]) {
    await assert.rejects(store.get("bucket", key, { maxBytes: 9 }), coded("COV_OBJECT_BAD_NAME"));
  }
  await assert.rejects(
    store.put("bucket", "way/new", new Uint8Array(1)),
    coded("COV_OBJECT_BAD_NAME"),
  );
  assert.deepEqual(await readdir(join(scratch, "outside")), ["secret"]);
  assert.deepEqual((await store.list("bucket", { limit: 9 })).keys, ["inside/k"]);
});

test("file: leaves nothing staged, and removes what a crashed writer left long ago", async () => {
  const root = makeRoot();
  const store = openFileObjectStore({ root, writableBuckets: "all" });
  await store.put("bucket", "k", new Uint8Array(1), { ifAbsent: true });
  await assert.rejects(store.put("bucket", "k", new Uint8Array(1), { ifAbsent: true }));
  assert.deepEqual(await readdir(join(root, ".staging")), []);
  await writeFile(join(root, ".staging", "old"), "torn");
  await utimes(join(root, ".staging", "old"), 1, 1);
  await writeFile(join(root, ".staging", "young"), "torn");
  openFileObjectStore({ root, writableBuckets: "all" });
  assert.deepEqual(await readdir(join(root, ".staging")), ["young"]);
});

test("file: a full disk is reported as such", () => {
  const full = Object.assign(new Error("no space"), { code: "ENOSPC" });
  assert.ok(coded("COV_DISK_FULL")(mapFileError(full, "bucket/k")));
});

test("file: behaves like a sorted map under any sequence of operations", async () => {
  const key = fc.constantFrom("a", "a/b", "a/b/c", "a-b", "b", "b/0", "b/1");
  const operation = fc.oneof(
    fc.record({ kind: fc.constant("put" as const), key, data: fc.uint8Array({ maxLength: 20 }) }),
    fc.record({ kind: fc.constant("remove" as const), key }),
  );
  const run = async (
    operations: (typeof operation extends fc.Arbitrary<infer T> ? T : never)[],
  ) => {
    const store = openFileObjectStore({ root: makeRoot(), writableBuckets: "all" });
    const model = new Map<string, Uint8Array>();
    for (const step of operations) {
      if (step.kind === "put") {
        await store.put("bucket", step.key, step.data);
        model.set(step.key, step.data);
      } else {
        await store.remove("bucket", step.key);
        model.delete(step.key);
      }
    }
    assert.deepEqual((await store.list("bucket", { limit: 100 })).keys, [...model.keys()].sort());
    for (const [name, data] of model) {
      assert.deepEqual(await store.get("bucket", name, { maxBytes: 20 }), new Uint8Array(data));
    }
  };
  await fc.assert(fc.asyncProperty(fc.array(operation, { maxLength: 12 }), run), { numRuns: 25 });
});
