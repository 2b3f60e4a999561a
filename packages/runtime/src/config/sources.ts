/** Turns environment variables and command-line flags into the nested object they stand for. */

import type { Leaf } from "./introspect.ts";
import { nearest } from "./nearest.ts";

/** A nested object of raw values. */
export type RawConfig = Record<string, unknown>;

/** One thing wrong with the configuration. */
export interface ConfigProblem {
  /** Dotted path of the key, or the flag or variable as given. */
  path: string;
  /** What is wrong. */
  problem: string;
  /** What would be right; empty when the problem says it. */
  expected: string;
}

/** Options that are not keys. */
export interface CommandLine {
  configFile: string | undefined;
  printConfig: boolean;
  help: boolean;
  values: RawConfig;
}

/** Environment variable of a key: COVENANT_GAUNTLET_VALIDATOR_LEDGER_URL. */
export function variableOf(service: string, path: readonly string[]): string {
  return ["COVENANT", service.replaceAll("-", "_"), ...path.map(snake)].join("_").toUpperCase();
}

/** Flag of a key: --ledger.url, --data-directory. */
export function flagOf(path: readonly string[]): string {
  return `--${path.map(kebab).join(".")}`;
}

/** Values from variables that begin with the service's prefix; unknown ones are problems. */
export function readEnvironment(
  service: string,
  leaves: readonly Leaf[],
  env: Record<string, string | undefined>,
  problems: ConfigProblem[],
): RawConfig {
  const byName = new Map(leaves.map((leaf) => [variableOf(service, leaf.path), leaf]));
  const prefix = `${variableOf(service, [])}_`;
  const values: RawConfig = {};
  for (const [name, text] of Object.entries(env)) {
    if (text === undefined || !name.startsWith(prefix)) continue;
    const leaf = byName.get(name);
    if (leaf) setAt(values, leaf.path, parseText(leaf, text));
    else problems.push(unknownKey(name, "Unknown environment variable", byName.keys()));
  }
  return values;
}

/** Values and options from `argv` (without program and script). */
export function readFlags(
  leaves: readonly Leaf[],
  argv: readonly string[],
  problems: ConfigProblem[],
): CommandLine {
  const byFlag = new Map<string, Leaf>();
  for (const leaf of leaves) {
    byFlag.set(flagOf(leaf.path), leaf);
    byFlag.set(`--${leaf.path.join(".")}`, leaf);
  }
  const result: CommandLine = {
    configFile: undefined,
    printConfig: false,
    help: false,
    values: {},
  };
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i]!;
    const equals = argument.indexOf("=");
    const flag = equals < 0 ? argument : argument.slice(0, equals);
    const inline = equals < 0 ? undefined : argument.slice(equals + 1);
    if (flag === "--print-config") result.printConfig = true;
    else if (flag === "--help" || flag === "-h") result.help = true;
    else if (flag === "--config" || byFlag.has(flag)) {
      const leaf = byFlag.get(flag);
      const bare = leaf?.kind === "boolean" && !/^(true|false)$/.test(argv[i + 1] ?? "");
      const text = inline ?? (bare ? "true" : argv[++i]);
      if (text === undefined) {
        problems.push({ path: flag, problem: "Needs a value", expected: `${flag} VALUE` });
      } else if (leaf) setAt(result.values, leaf.path, parseText(leaf, text));
      else result.configFile = text;
    } else {
      const known = [...leaves.map((leaf) => flagOf(leaf.path)), ...OPTIONS];
      problems.push(unknownKey(flag, "Unknown flag", known));
    }
  }
  return result;
}

const OPTIONS = ["--config", "--print-config", "--help"];

/** A problem that names the nearest known key. */
export function unknownKey(path: string, problem: string, known: Iterable<string>): ConfigProblem {
  const meant = nearest(path, known);
  return { path, problem, expected: meant ? `did you mean ${meant}?` : "" };
}

/** Later objects win, key by key; arrays and other values are replaced whole. */
export function merge(base: RawConfig, over: RawConfig): RawConfig {
  const result: RawConfig = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = result[key];
    result[key] = isPlain(below) && isPlain(value) ? merge(below, value) : value;
  }
  return result;
}

/** True for objects made by braces or JSON. */
export function isPlain(value: unknown): value is RawConfig {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function setAt(target: RawConfig, path: readonly string[], value: unknown): void {
  let at = target;
  for (const key of path.slice(0, -1)) {
    const next = isPlain(at[key]) ? at[key] : {};
    at[key] = next;
    at = next;
  }
  at[path.at(-1)!] = value;
}

/** Text becomes what the key takes; what does not fit stays text, and validation names it. */
function parseText(leaf: Leaf, text: string): unknown {
  switch (leaf.kind) {
    case "string":
    case "enum":
      return text;
    case "number":
    case "int":
      return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
    case "bigint":
      return /^-?\d+$/.test(text) ? BigInt(text) : text;
    case "boolean":
      return text === "true" ? true : text === "false" ? false : text;
    default:
      return parseStructured(leaf, text);
  }
}

function parseStructured(leaf: Leaf, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Lists may be written with commas: --peers a,b
    return leaf.kind === "array" ? text.split(",").map((item) => item.trim()) : text;
  }
}

function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function snake(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter}`);
}
