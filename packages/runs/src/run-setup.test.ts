import assert from "node:assert/strict";
import { test } from "node:test";
import { hotkeyFromSeed, sha256 } from "@covenant/contracts";
import { fromUnknown } from "@covenant/runtime";
import { loadRun, type RunSource } from "./run-setup.ts";

const owner = hotkeyFromSeed(new Uint8Array(32).fill(9)).address;

function source(stored: Uint8Array, committed: Uint8Array | undefined): RunSource {
  const commitment = async () =>
    committed === undefined ? undefined : { block: 1, fields: [committed] };
  return {
    netuid: 1,
    ledger: { commitment } as unknown as RunSource["ledger"],
    objects: { get: async () => stored } as unknown as RunSource["objects"],
  };
}

const codeOf = (code: string) => (error: unknown) => fromUnknown(error).code === code;

test("a run that its owner has not committed yet can be waited for", async () => {
  const bytes = Uint8Array.of(1, 2, 3);
  for (const committed of [undefined, new Uint8Array(31)]) {
    await assert.rejects(
      loadRun(source(bytes, committed), "run", owner),
      codeOf("COV_RUN_NOT_COMMITTED"),
    );
  }
});

test("a stored run that is not the committed one, or no run at all, is refused", async () => {
  const bytes = Uint8Array.of(1, 2, 3);
  for (const committed of [new Uint8Array(32), sha256(bytes)]) {
    await assert.rejects(
      loadRun(source(bytes, committed), "run", owner),
      codeOf("COV_RUN_INVALID"),
    );
  }
});
