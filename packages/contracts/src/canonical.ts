/**
 * Canonical bytes of a protobuf message: what is hashed and signed. Ordinary protobuf leaves the order
 * of map entries open; here fields ascend by number, map entries ascend by key (numbers by value,
 * text by its UTF-8 bytes), repeated numbers are packed, unknown fields are left out. Two messages
 * have the same bytes exactly when every field has the same value; every NaN counts as the same one,
 * -0 differs from 0. The bytes are valid protobuf.
 */
import type { DescField, DescMessage, MessageShape } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import type { ReflectMessage } from "@bufbuild/protobuf/reflect";
import { reflect } from "@bufbuild/protobuf/reflect";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

const NESTING_LIMIT = 64;

/**
 * Canonical bytes of `message`. Throws a TypeError when a value does not fit its field, when text has
 * a lone surrogate (two texts would get the same bytes) and when messages nest more than 64 deep.
 */
export function canonicalBytes<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): Uint8Array {
  const writer = new BinaryWriter();
  try {
    writeMessage(writer, reflect(schema, message), 0);
  } catch (error) {
    throw new TypeError(`Cannot encode ${schema.typeName}: ${(error as Error).message}`);
  }
  return writer.finish();
}

function writeMessage(writer: BinaryWriter, message: ReflectMessage, depth: number): void {
  if (depth > NESTING_LIMIT) throw new TypeError(`messages nest more than ${NESTING_LIMIT} deep`);
  for (const field of message.sortedFields) {
    if (message.isSet(field)) writeField(writer, message, field, depth);
  }
}

function writeField(
  writer: BinaryWriter,
  message: ReflectMessage,
  field: DescField,
  depth: number,
): void {
  switch (field.fieldKind) {
    case "scalar":
      writeTagged(writer, field.number, field.scalar, message.get(field));
      break;
    case "enum":
      writeTagged(writer, field.number, ScalarType.INT32, message.get(field));
      break;
    case "message":
      writeChild(writer, field.number, message.get(field), depth);
      break;
    case "list":
      writeList(writer, field, [...message.get(field)], depth);
      break;
    case "map":
      writeMap(writer, field, [...message.get(field)], depth);
      break;
  }
}

function writeChild(writer: BinaryWriter, number: number, child: ReflectMessage, depth: number) {
  writer.tag(number, WireType.LengthDelimited).fork();
  writeMessage(writer, child, depth + 1);
  writer.join();
}

function writeList(
  writer: BinaryWriter,
  field: DescField & { fieldKind: "list" },
  items: unknown[],
  depth: number,
): void {
  if (field.listKind === "message") {
    for (const item of items) writeChild(writer, field.number, item as ReflectMessage, depth);
    return;
  }
  const type = field.listKind === "enum" ? ScalarType.INT32 : field.scalar;
  if (wireTypeOf(type) === WireType.LengthDelimited) {
    for (const item of items) writeTagged(writer, field.number, type, item);
    return;
  }
  writer.tag(field.number, WireType.LengthDelimited).fork();
  for (const item of items) writeScalar(writer, type, item);
  writer.join();
}

function writeMap(
  writer: BinaryWriter,
  field: DescField & { fieldKind: "map" },
  entries: [unknown, unknown][],
  depth: number,
): void {
  for (const [key, value] of entries.sort(([a], [b]) => compareKeys(a, b))) {
    writer.tag(field.number, WireType.LengthDelimited).fork();
    writeTagged(writer, 1, field.mapKey, key);
    if (field.mapKind === "message") writeChild(writer, 2, value as ReflectMessage, depth);
    else writeTagged(writer, 2, field.mapKind === "enum" ? ScalarType.INT32 : field.scalar, value);
    writer.join();
  }
}

function compareKeys(a: unknown, b: unknown): number {
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  return (a as number) < (b as number) ? -1 : (a as number) > (b as number) ? 1 : 0;
}

/** Code points compare as UTF-8 bytes do; JavaScript's own order compares UTF-16 units. */
function compareText(a: string, b: string): number {
  const [left, right] = [new TextEncoder().encode(a), new TextEncoder().encode(b)];
  for (let i = 0; i < left.length && i < right.length; i++) {
    const difference = left[i]! - right[i]!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

function writeTagged(writer: BinaryWriter, number: number, type: ScalarType, value: unknown): void {
  writer.tag(number, wireTypeOf(type));
  writeScalar(writer, type, value);
}

const WRITERS: Record<ScalarType, (writer: BinaryWriter, value: never) => unknown> = {
  [ScalarType.DOUBLE]: (writer, value) => writer.double(Number.isNaN(value) ? Number.NaN : value),
  [ScalarType.FLOAT]: (writer, value) => writer.float(Number.isNaN(value) ? Number.NaN : value),
  [ScalarType.INT64]: (writer, value) => writer.int64(value),
  [ScalarType.UINT64]: (writer, value) => writer.uint64(value),
  [ScalarType.INT32]: (writer, value) => writer.int32(value),
  [ScalarType.FIXED64]: (writer, value) => writer.fixed64(value),
  [ScalarType.FIXED32]: (writer, value) => writer.fixed32(value),
  [ScalarType.BOOL]: (writer, value) => writer.bool(value),
  [ScalarType.STRING]: (writer, value: string) => {
    if (!value.isWellFormed()) throw new TypeError("text has a lone surrogate");
    writer.string(value);
  },
  [ScalarType.BYTES]: (writer, value) => writer.bytes(value),
  [ScalarType.UINT32]: (writer, value) => writer.uint32(value),
  [ScalarType.SFIXED32]: (writer, value) => writer.sfixed32(value),
  [ScalarType.SFIXED64]: (writer, value) => writer.sfixed64(value),
  [ScalarType.SINT32]: (writer, value) => writer.sint32(value),
  [ScalarType.SINT64]: (writer, value) => writer.sint64(value),
};

function writeScalar(writer: BinaryWriter, type: ScalarType, value: unknown): void {
  WRITERS[type](writer, value as never);
}

function wireTypeOf(type: ScalarType): WireType {
  switch (type) {
    case ScalarType.BYTES:
    case ScalarType.STRING:
      return WireType.LengthDelimited;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return WireType.Bit64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return WireType.Bit32;
    default:
      return WireType.Varint;
  }
}
