import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../../examples", import.meta.url));

for (const file of readdirSync(folder).filter((name) => name.endsWith(".ts"))) {
  test(`the example ${file} runs`, () => {
    const run = spawnSync(process.execPath, [`${folder}/${file}`], {
      encoding: "utf8",
      timeout: 120_000,
    });
    assert.equal(run.stderr, "");
    assert.equal(run.stdout, "learned\n");
    assert.equal(run.status, 0);
  });
}
