import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const script = fileURLToPath(new URL("../../../scripts/build-kernels.mjs", import.meta.url));

test("without a compiler the build says in one sentence what to install", () => {
  const empty = mkdtempSync(`${tmpdir()}/covenant-no-tools-`);
  try {
    const env = { PATH: empty };
    const run = spawnSync(process.execPath, [script, "--force"], { env, encoding: "utf8" });
    assert.equal(run.status, 1);
    assert.equal(run.stdout, "");
    assert.equal(run.stderr.trim().split("\n").length, 1);
    assert.match(
      run.stderr,
      /^The kernels need CMake 3\.20 or newer and Ninja or make and a C\+\+20 compiler: /,
    );
    assert.match(run.stderr, /apt-get install cmake ninja-build g\+\+.*xcode-select --install/);
  } finally {
    rmSync(empty, { recursive: true });
  }
});

test("an unknown argument is refused", () => {
  const run = spawnSync(process.execPath, [script, "--fast"], { encoding: "utf8" });
  assert.equal(run.status, 64);
  assert.match(run.stderr, /^Unknown option '--fast'\.\nUsage: /);
});
