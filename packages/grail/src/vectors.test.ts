import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { makeVectors } from "./vectors.fixture.ts";

test("seeds, challenges, slots, episodes, records and statements match the golden vectors", () => {
  const file = new URL("../../../test/vectors/grail/proof-v1.json", import.meta.url);
  assert.deepEqual(makeVectors(), JSON.parse(readFileSync(file, "utf8")));
});
