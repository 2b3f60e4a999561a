import assert from "node:assert/strict";
import { test } from "node:test";
import type { DescMessage } from "@bufbuild/protobuf";
import { clone, create, equals, fromBinary, fromJson, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import vectors from "../../../test/vectors/contracts/canonical.json" with { type: "json" };
import { messageOf } from "./arbitrary.testing.ts";
import { canonicalBytes } from "./canonical.ts";
import { bytesEqual, toHex } from "./hash.ts";
import * as basilica from "./proto/basilica.ts";
import * as common from "./proto/common.ts";
import * as gauntlet from "./proto/gauntlet.ts";
import * as grail from "./proto/grail.ts";
import * as registry from "./proto/registry.ts";
import * as templar from "./proto/templar.ts";

const SCHEMAS: DescMessage[] = [basilica, common, gauntlet, grail, registry, templar]
  .flatMap((module) => Object.values(module))
  .filter((value) => typeof value === "object" && value.kind === "message") as DescMessage[];

const anySchema = fc.constantFrom(...SCHEMAS);

test("two messages have the same bytes exactly when they are equal", () => {
  let equalPairs = 0;
  const pair = anySchema.chain((schema) =>
    fc.tuple(fc.constant(schema), messageOf(schema), messageOf(schema)),
  );
  fc.assert(
    fc.property(pair, ([schema, a, b]) => {
      const same = equals(schema, a, b);
      if (same) equalPairs++;
      const left = canonicalBytes(schema, a);
      assert.equal(bytesEqual(left, canonicalBytes(schema, b)), same);
    }),
    { numRuns: 2000 },
  );
  assert.ok(equalPairs > 0, "The generator made no equal pair, so the test proves only one side");
});

test("bytes survive the wire, are a fixed point, and ignore map order and unknown fields", () => {
  const one = anySchema.chain((schema) => fc.tuple(fc.constant(schema), messageOf(schema)));
  fc.assert(
    fc.property(one, ([schema, message]) => {
      const bytes = canonicalBytes(schema, message);
      const decoded = fromBinary(schema, bytes);
      assert.ok(equals(schema, decoded, message));
      assert.deepEqual(canonicalBytes(schema, decoded), bytes);
      assert.deepEqual(
        canonicalBytes(schema, fromBinary(schema, toBinary(schema, message))),
        bytes,
      );
      const copy = clone(schema, message);
      copy.$unknown = [{ no: 5000, wireType: 0, data: Uint8Array.of(1) }];
      assert.deepEqual(canonicalBytes(schema, copy), bytes);
    }),
    { numRuns: 1000 },
  );
});

test("map entries ascend by the bytes of their keys, whatever order they were put in", () => {
  const schema = common.ErrorDetailSchema;
  // U+FFFF sorts before U+1F600 as UTF-8 and after it as UTF-16.
  const keys = ["", "10", "9", "B", "a", "ä", "\uffff", "\u{1f600}"];
  const forward = create(schema, { metadata: Object.fromEntries(keys.map((k) => [k, "x"])) });
  const reversed = keys.toReversed().map((k) => [k, "x"]);
  const backward = create(schema, { metadata: Object.fromEntries(reversed) });
  const bytes = canonicalBytes(schema, forward);
  assert.deepEqual(canonicalBytes(schema, backward), bytes);
  let at = -1;
  for (const key of keys.slice(1)) {
    const next = Buffer.from(bytes).indexOf(Buffer.from(`${key}\x12\x01x`));
    assert.ok(next > at, `"${key}" comes after its predecessor`);
    at = next;
  }
});

test("-0 and 0 differ, every NaN is the same", () => {
  const schema = gauntlet.ContributorSchema;
  const bytes = (weight: number) => toHex(canonicalBytes(schema, create(schema, { weight })));
  assert.notEqual(bytes(-0), bytes(0));
  const otherNan = new DataView(new ArrayBuffer(8));
  otherNan.setBigUint64(0, 0xfff8_0000_0000_0001n);
  assert.equal(bytes(otherNan.getFloat64(0)), bytes(Number.NaN));
  assert.ok(bytes(Number.NaN).endsWith("000000000000f87f"));
});

test("text that is no Unicode and values that do not fit are refused", () => {
  const schema = gauntlet.ContributorSchema;
  const refused = (init: object) => canonicalBytes(schema, create(schema, init));
  assert.throws(() => refused({ hotkey: "\ud800" }), /lone surrogate/);
  assert.throws(() => refused({ payloadBytes: -1n }), TypeError);
});

test("published vectors hold", () => {
  for (const { type, json, bytes } of vectors.cases) {
    const schema = SCHEMAS.find(({ typeName }) => typeName === type)!;
    assert.equal(toHex(canonicalBytes(schema, fromJson(schema, json))), bytes);
  }
});
