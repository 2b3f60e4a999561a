/** Test support: random messages of any schema, drawn from small domains so that pairs collide. */
import type { DescField, DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, ScalarType } from "@bufbuild/protobuf";
import fc from "fast-check";

const DEPTH_MAX = 3;

/** Messages of the schema; NaN and -0 are left out, for `equals` treats them specially. */
export function messageOf<Desc extends DescMessage>(
  schema: Desc,
  depth = 0,
): fc.Arbitrary<MessageShape<Desc>> {
  return initOf(schema, depth).map((init) => create(schema, init as MessageInitShape<Desc>));
}

function initOf(schema: DescMessage, depth: number): fc.Arbitrary<Record<string, unknown>> {
  const members: Record<string, fc.Arbitrary<unknown>> = {};
  for (const field of schema.fields) {
    const value = depth >= DEPTH_MAX && needsMessage(field) ? undefined : anyValueOf(field, depth);
    if (value && !field.oneof) members[field.localName] = fc.option(value, { nil: undefined });
  }
  for (const oneof of schema.oneofs) {
    const cases = oneof.fields
      .filter((field) => depth < DEPTH_MAX || !needsMessage(field))
      .map((field) => anyValueOf(field, depth).map((value) => ({ case: field.localName, value })));
    if (cases.length > 0) {
      members[oneof.localName] = fc.option(fc.oneof(...cases), { nil: undefined });
    }
  }
  return fc.record(members).map((record) => {
    return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined));
  });
}

function needsMessage(field: DescField): boolean {
  return field.message !== undefined;
}

function anyValueOf(field: DescField, depth: number): fc.Arbitrary<unknown> {
  switch (field.fieldKind) {
    case "scalar":
      return scalarOf(field.scalar);
    case "enum":
      return fc.integer({ min: 0, max: 3 });
    case "message":
      return messageOf(field.message, depth + 1);
    case "list":
      return fc.array(elementOf(field, depth), { maxLength: 3 });
    case "map":
      return fc
        .array(fc.tuple(keyOf(field.mapKey), elementOf(field, depth)), { maxLength: 4 })
        .map((entries) => Object.fromEntries(entries));
  }
}

function elementOf(field: DescField, depth: number): fc.Arbitrary<unknown> {
  if (field.message) return messageOf(field.message, depth + 1);
  return field.enum ? fc.integer({ min: 0, max: 3 }) : scalarOf(field.scalar!);
}

/** Numeric-looking keys matter: JavaScript iterates them before all others. */
function keyOf(type: ScalarType): fc.Arbitrary<string> {
  if (type !== ScalarType.STRING) return fc.integer({ min: 0, max: 20 }).map(String);
  return fc.constantFrom("", "10", "9", "a", "B", "ä", "\u{1f600}", "\uffff");
}

function scalarOf(type: ScalarType): fc.Arbitrary<unknown> {
  switch (type) {
    case ScalarType.STRING:
      return fc.constantFrom("", "a", "run-1", "ä", "\u{1f600}");
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 2, max: 3 });
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.DOUBLE:
      return fc.constantFrom(0, 1, -1.5, Number.MAX_VALUE, 5e-324, Number.POSITIVE_INFINITY);
    case ScalarType.FLOAT:
      return fc.constantFrom(0, 1, -1.5);
    case ScalarType.INT64:
      return fc.constantFrom(0n, 1n, -1n, 2n ** 63n - 1n, -(2n ** 63n));
    case ScalarType.UINT64:
      return fc.constantFrom(0n, 1n, 2n ** 64n - 1n);
    case ScalarType.INT32:
      return fc.constantFrom(0, 1, -1, 2 ** 31 - 1);
    default:
      return fc.constantFrom(0, 1, 2 ** 32 - 1);
  }
}
