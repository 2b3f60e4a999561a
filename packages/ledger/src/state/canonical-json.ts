import { sha256 } from "@covenant/contracts";

/** Values that canonical JSON can carry. Undefined members are left out. */
export type Json = null | boolean | number | string | readonly Json[] | { [key: string]: unknown };

/**
 * JSON with sorted keys and no spaces: one text for one value, so that hashes and signatures over it
 * agree everywhere. Bigints become {"$big": "1"}, maps {"$map": [[key, value], …]} sorted by key.
 */
export function canonicalJson(value: unknown): string {
  if (typeof value === "bigint") return `{"$big":"${value}"}`;
  if (value instanceof Map) return canonicalMap(value);
  if (Array.isArray(value)) {
    return `[${value.map((item) => (item === undefined ? "null" : canonicalJson(item))).join()}]`;
  }
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => compareText(a, b))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join()}}`;
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new RangeError("A canonical value holds finite numbers only");
  }
  return JSON.stringify(value ?? null);
}

/** The value of a canonical text; throws a SyntaxError when it is not JSON. */
export function fromCanonicalJson(text: string): unknown {
  return JSON.parse(text, (_key, value: unknown) => {
    if (typeof value !== "object" || value === null) return value;
    if ("$big" in value) return BigInt(String(value.$big));
    if ("$map" in value && Array.isArray(value.$map)) return new Map(value.$map);
    return value;
  });
}

/** SHA-256 of the canonical text: 32 bytes. */
export function canonicalHash(value: unknown): Uint8Array {
  return sha256(new TextEncoder().encode(canonicalJson(value)));
}

function canonicalMap(map: Map<unknown, unknown>): string {
  const entries = [...map].sort(([a], [b]) =>
    typeof a === "number" && typeof b === "number" ? a - b : compareText(String(a), String(b)),
  );
  return `{"$map":${canonicalJson(entries)}}`;
}

function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
