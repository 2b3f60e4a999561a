import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

const root = path.resolve(import.meta.dirname, "..");
const page = readFileSync(path.join(root, "docs", "reference", "kernels.md"), "utf8");

for (const [language, ending, least] of [
  ["cpp", "cc", 10],
  ["ts", "ts", 2],
] as const) {
  test(`the ${language} code of the C API's page is code of an example that is built and run`, () => {
    const examples = globSync(`kernels/examples/*.${ending}`, { cwd: root }).map((file) =>
      readFileSync(path.join(root, file), "utf8"),
    );
    const pattern = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms");
    const blocks = [...page.matchAll(pattern)].map((match) => match[1] ?? "");
    assert.ok(blocks.length >= least, `${blocks.length} blocks`);
    for (const block of blocks) {
      assert.ok(
        examples.some((example) => example.includes(block)),
        `no example has this:\n${block}`,
      );
    }
  });
}

test("the C API's page names every header", () => {
  for (const file of globSync("kernels/include/covenant/*.h", { cwd: root })) {
    const name = path.basename(file);
    assert.ok(page.includes(`[${name}](`), `${name} is missing`);
  }
});
