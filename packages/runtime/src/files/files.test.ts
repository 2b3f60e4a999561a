import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import filesystem, { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode } from "../errors/covenant-error.ts";
import { temporaryDirectory } from "../testing.ts";
import { readFileLimited, writeFileAtomic } from "./files.ts";
import { LOCK_FILE, lockDirectory } from "./lock.ts";

const { open: realOpen } = filesystem;

test("a written file is whole, replaces the old one, and leaves nothing beside it", async (t) => {
  const directory = join(await temporaryDirectory(t), "new", "deep");
  const path = join(directory, "state");
  await writeFileAtomic(path, "old");
  await writeFileAtomic(path, Uint8Array.of(1, 2, 3));
  assert.deepEqual(await readFileLimited(path, 3), Uint8Array.of(1, 2, 3));
  assert.deepEqual(await readdir(directory), ["state"]);
});

test("a full disk is said in words, leaves the old content and no debris", async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, "state");
  await writeFile(path, "old");
  for (const failing of ["writeFile", "sync"] as const) {
    const open = t.mock.method(filesystem, "open", async (...args: Parameters<typeof realOpen>) => {
      const handle = await realOpen(...args);
      handle[failing] = async () => {
        await handle.write("ne");
        throw Object.assign(new Error("write ENOSPC"), { code: "ENOSPC" });
      };
      return handle;
    });
    syncBuiltinESMExports();
    try {
      await assert.rejects(writeFileAtomic(path, "new"), (error: unknown) => {
        assert.ok(hasCode(error, "COV_DISK_FULL"));
        assert.ok(error.retryable && error.remedy.includes(directory));
        return true;
      });
    } finally {
      open.mock.restore();
      syncBuiltinESMExports();
    }
    assert.equal(await readFile(path, "utf8"), "old");
    assert.deepEqual(await readdir(directory), ["state"]);
  }
});

test("reading stops at the limit", async (t) => {
  const path = join(await temporaryDirectory(t), "big");
  await writeFile(path, "x".repeat(5000));
  assert.equal((await readFileLimited(path, 5000)).length, 5000);
  await assert.rejects(readFileLimited(path, 4999), { code: "COV_FILE_TOO_LARGE" });
  await assert.rejects(readFileLimited("/proc/self/maps", 10), { code: "COV_FILE_TOO_LARGE" });
  await assert.rejects(readFileLimited(`${path}-no`, 1), { code: "COV_FILE_NOT_FOUND" });
  await mkdir(`${path}-dir`);
  await assert.rejects(readFileLimited(`${path}-dir`, 1e9), { code: "COV_FILE_UNREADABLE" });
});

test("two never hold one directory, and release lets the next in", async (t) => {
  const directory = join(await temporaryDirectory(t), "data");
  const lock = await lockDirectory(directory);
  await assert.rejects(lockDirectory(directory), {
    code: "COV_DATA_DIRECTORY_IN_USE",
    metadata: { directory, pid: String(process.pid) },
  });
  lock.release();
  lock.release();
  const again = await lockDirectory(directory);
  again.release();
  assert.deepEqual(await readdir(directory), []);
});

test("a lock of a dead process, of a reused process number, or half written is taken over", async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, LOCK_FILE);
  const child = spawn(process.execPath, ["-e", ""]);
  await once(child, "exit");
  for (const content of [
    JSON.stringify({ pid: child.pid, startTime: "1" }),
    JSON.stringify({ pid: process.pid, startTime: "1" }),
    '{"pid": 12',
    "",
  ]) {
    await writeFile(path, content);
    const lock = await lockDirectory(directory);
    assert.equal(JSON.parse(await readFile(path, "utf8")).pid, process.pid);
    lock.release();
  }
});

test("of many that want a stale directory, one gets it", async (t) => {
  const directory = await temporaryDirectory(t);
  await writeFile(join(directory, LOCK_FILE), "");
  const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lockDirectory(directory)));
  assert.equal(tries.filter(({ status }) => status === "fulfilled").length, 1);
});
