/** Help text made from the schema. */
import type { Leaf } from "./introspect.ts";
import { flagOf, variableOf } from "./sources.ts";

/** One paragraph a key: flag, type or unit, description, default, environment variable. */
export function helpText(service: string, leaves: readonly Leaf[]): string {
  const head = [
    `Usage: ${service} [--config FILE] [--print-config] [--help] [--key value ...]`,
    "",
    "Values come from defaults, then the JSON file, then the environment, then flags.",
    "",
  ];
  return `${[...head, ...leaves.map((leaf) => paragraph(service, leaf))].join("\n")}\n`;
}

function paragraph(service: string, leaf: Leaf): string {
  const key = leaf.path.at(-1) ?? "";
  const fallback = leaf.hasDefault ? `default ${JSON.stringify(leaf.defaultValue)}` : undefined;
  const facts = [unit(leaf, key), fallback ?? (leaf.required ? "required" : "optional")];
  const about = leaf.description ? `${leaf.description}. ` : "";
  return `  ${flagOf(leaf.path)}\n      ${about}(${facts.join("; ")})\n      ${variableOf(service, leaf.path)}`;
}

function unit(leaf: Leaf, key: string): string {
  if (leaf.choices.length > 0) return leaf.choices.join(" | ");
  if (key.endsWith("Ms")) return 'milliseconds, or "10s"';
  if (key.endsWith("Bytes")) return 'bytes, or "4 MiB"';
  return leaf.kind;
}
