import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { root } from "./root.ts";

const call = (script: string, ...args: string[]) =>
  spawnSync(process.execPath, [path.join(root, "scripts", script), ...args], { encoding: "utf8" });

for (const script of [
  "build-kernels.mjs",
  "fuzz-kernels.mjs",
  "release-kernels.mjs",
  "sanitize-kernels.mjs",
  "bench/all.ts",
  "bench/equal-loss.ts",
  "bench/kernels.ts",
]) {
  test(`scripts/${script} says how it is called, and what it does not know`, () => {
    const help = call(script, "--help");
    assert.equal(help.status, 0, help.stderr);
    assert.match(help.stdout, /^Usage: npm run /);
    assert.equal(help.stderr, "");
    for (const wrong of ["--fast", "fast"]) {
      const refused = call(script, wrong);
      assert.equal(refused.status, 64);
      assert.equal(refused.stdout, "");
      const [sentence, usage] = refused.stderr.split("\n");
      assert.match(sentence ?? "", /^[A-Z].*fast'\.$/);
      assert.match(usage ?? "", /^Usage: /);
    }
  });
}

test("numbers and names out of their range are refused in a sentence", () => {
  const calls: [RegExp, ...string[]][] = [
    [/^--jobs takes a whole number above 0\.$/, "build-kernels.mjs", "--jobs", "0"],
    [/^--seconds takes a whole number above 0\.$/, "fuzz-kernels.mjs", "--seconds", "1.5"],
    [/^Unknown target nobody; there are .*sparse_body/, "fuzz-kernels.mjs", "--target", "nobody"],
    [/^Unknown kind memory; there are /, "sanitize-kernels.mjs", "--kind", "memory"],
    [/^There is no compiler nobody\+\+ /, "sanitize-kernels.mjs", "--compiler", "nobody++"],
    [/^There is no program nobody; there are .*gemm/, "bench/kernels.ts", "--only", "nobody"],
  ];
  for (const [sentence, script = "", ...args] of calls) {
    const { status, stderr } = call(script, ...args);
    assert.equal(status, 64, script);
    assert.match(stderr.trim(), sentence);
  }
});

test("a folder for packages that cannot be made is named", () => {
  const file = path.join(root, "LICENSE");
  const { status, stderr } = call("release-kernels.mjs", "--out", path.join(file, "packages"));
  assert.equal(status, 1);
  assert.match(stderr, /^The packages cannot be written to .*LICENSE\/packages: ENOTDIR.*\n$/);
});
