/** Reads keys, defaults and descriptions out of a zod schema, for flags, environment and help. */
import type { z } from "zod";

/** A zod object schema of any shape. */
export type ConfigSchema = z.ZodObject;

/** One key that takes a value. */
export interface Leaf {
  /** Path of keys, for example ["ledger", "url"]. */
  path: string[];
  /** Kind of value: number, string, boolean, enum, array, …; as zod names it. */
  kind: string;
  /** Alternatives of an enum. */
  choices: string[];
  description: string;
  hasDefault: boolean;
  defaultValue: unknown;
  required: boolean;
  secret: boolean;
}

interface Definition {
  type: string;
  innerType?: z.ZodType;
  in?: z.ZodType;
  shape?: Record<string, z.ZodType>;
  defaultValue?: unknown;
  entries?: Record<string, string>;
  values?: unknown[];
}

/** All keys that take a value, in schema order. */
export function leavesOf(schema: z.ZodType, path: string[] = []): Leaf[] {
  const { core, ...facts } = unwrap(schema);
  if (core.type === "object" && core.shape && Object.keys(core.shape).length > 0) {
    return Object.entries(core.shape).flatMap(([key, child]) =>
      leavesOf(child, [...path, key]).map((leaf) =>
        facts.required ? leaf : { ...leaf, required: false },
      ),
    );
  }
  const choices = Object.values(core.entries ?? {}).map(String);
  return [{ path, kind: core.type, choices, ...facts, secret: isSecretKey(path.at(-1) ?? "") }];
}

/** Keys of the object at `path`, or undefined when there is none. */
export function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] | undefined {
  const { core } = unwrap(schema);
  if (core.type !== "object" || !core.shape) return undefined;
  const [head, ...rest] = path;
  if (head === undefined) return Object.keys(core.shape);
  const child = core.shape[String(head)];
  return child && keysAt(child, rest);
}

/** True for keys whose values are shown as "[hidden]"; keys naming a file hold a path, no secret. */
export function isSecretKey(key: string): boolean {
  return /(secret|password|passphrase|token|seed|apiKey|accessKey)$/i.test(key);
}

function unwrap(schema: z.ZodType) {
  let at = schema;
  let description = at.description;
  let hasDefault = false;
  let defaultValue: unknown;
  let required = true;
  for (let depth = 0; depth < 16; depth++) {
    const definition = at.def as unknown as Definition;
    description ??= at.description;
    const isDefault = definition.type === "default" || definition.type === "prefault";
    if (isDefault && !hasDefault) {
      hasDefault = true;
      defaultValue = definition.defaultValue;
    }
    if (isDefault || definition.type === "optional") required = false;
    const inner = definition.innerType ?? definition.in;
    if (!inner) break;
    at = inner;
  }
  const core = at.def as unknown as Definition;
  return { core, description: description ?? "", hasDefault, defaultValue, required };
}
