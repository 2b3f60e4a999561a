/** Configuration: defaults ← file ← environment ← flags, checked once, all errors at once. */
import type { z } from "zod";
import { CovenantError } from "../errors/covenant-error.ts";
import { readFileLimited } from "../files/files.ts";
import { helpText } from "./help.ts";
import type { ConfigSchema } from "./introspect.ts";
import { isSecretKey, keysAt, leavesOf } from "./introspect.ts";
import type { ConfigProblem, RawConfig } from "./sources.ts";
import { isPlain, merge, readEnvironment, readFlags, unknownKey } from "./sources.ts";
import { parseBytes, parseDurationMs } from "./units.ts";

const FILE_BYTES_MAX = 1024 * 1024;

/** Where the configuration comes from. */
export interface LoadOptions {
  /** Name as in "gauntlet-validator"; selects COVENANT_GAUNTLET_VALIDATOR_… */
  service: string;
  /** Arguments without program and script. */
  argv: readonly string[];
  env: Record<string, string | undefined>;
}

/** Thrown for --help and --print-config: write the text to standard output and exit with 0. */
export class EarlyExit extends Error {
  readonly output: string;

  constructor(output: string) {
    super("Nothing to run");
    this.output = output;
  }
}

/**
 * The configuration of a service. Keys ending in Ms take "10s", keys ending in Bytes take "4 MiB".
 * Throws COV_CONFIG_INVALID with every problem, each with its path, what is wrong and what is
 * expected; EarlyExit for --help and --print-config.
 */
export async function loadConfig<Schema extends ConfigSchema>(
  schema: Schema,
  options: LoadOptions,
): Promise<z.output<Schema>> {
  const leaves = leavesOf(schema);
  const problems: ConfigProblem[] = [];
  const flags = readFlags(leaves, options.argv, problems);
  if (flags.help) throw new EarlyExit(helpText(options.service, leaves));
  const file = flags.configFile ? await readConfigFile(flags.configFile, problems) : {};
  const environment = readEnvironment(options.service, leaves, options.env, problems);
  const raw = parseUnits(merge(merge(file, environment), flags.values)) as RawConfig;
  const parsed = schema.safeParse(raw);
  if (!parsed.success)
    problems.push(...parsed.error.issues.flatMap((issue) => explain(schema, issue)));
  if (problems.length > 0 || !parsed.success) throw invalid(options.service, problems);
  if (flags.printConfig) throw new EarlyExit(`${JSON.stringify(masked(parsed.data), null, 2)}\n`);
  return parsed.data;
}

async function readConfigFile(path: string, problems: ConfigProblem[]): Promise<RawConfig> {
  try {
    const text = new TextDecoder().decode(await readFileLimited(path, FILE_BYTES_MAX));
    const value: unknown = JSON.parse(text);
    if (isPlain(value)) return value;
    problems.push({ path, problem: "Is no JSON object", expected: '{ "key": value, … }' });
  } catch (error) {
    const problem = error instanceof SyntaxError ? `Is no JSON: ${error.message}` : String(error);
    problems.push({ path, problem, expected: "a readable JSON file" });
  }
  return {};
}

/** Quantities written with units become numbers wherever the key's name says which unit it is. */
function parseUnits(value: unknown, key = ""): unknown {
  if (Array.isArray(value)) return value.map((item) => parseUnits(item, key));
  if (isPlain(value)) {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, parseUnits(v, k)]));
  }
  if (typeof value !== "string") return value;
  if (key.endsWith("Ms")) return parseDurationMs(value) ?? value;
  if (key.endsWith("Bytes")) return parseBytes(value) ?? value;
  return value;
}

function explain(schema: ConfigSchema, issue: z.core.$ZodIssue): ConfigProblem[] {
  const path = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const known = keysAt(schema, issue.path) ?? [];
    const prefix = path ? `${path}.` : "";
    return issue.keys.map((key) => {
      const problem = unknownKey(key, "Unknown key", known);
      return { ...problem, path: prefix + key };
    });
  }
  const key = String(issue.path.at(-1) ?? "");
  const missing = issue.code === "invalid_type" && issue.message.endsWith("received undefined");
  const problem = missing ? "Is missing" : issue.message;
  return [{ path: path || "(whole configuration)", problem, expected: expectation(issue, key) }];
}

function expectation(issue: z.core.$ZodIssue, key: string): string {
  if (issue.code === "invalid_value") return `one of ${issue.values.map(String).join(", ")}`;
  if (issue.code !== "invalid_type") return "";
  if (key.endsWith("Ms")) return 'a duration such as "10s", or milliseconds';
  if (key.endsWith("Bytes")) return 'a size such as "4 MiB", or bytes';
  return `a value of type ${issue.expected}`;
}

function invalid(service: string, problems: ConfigProblem[]): CovenantError {
  const lines = problems.map(({ path, problem, expected }) => {
    return `  ${path}: ${problem}${expected ? ` (${expected})` : ""}`;
  });
  const count = problems.length === 1 ? "1 error" : `${problems.length} errors`;
  const metadata = Object.fromEntries(problems.map(({ path, problem }) => [path, problem]));
  const message = `${count} in the configuration of ${service}:\n${lines.join("\n")}`;
  return new CovenantError("COV_CONFIG_INVALID", message, { metadata });
}

/** The configuration with secret values hidden, for --print-config and the log. */
export function masked(value: unknown, key = ""): unknown {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return value.map((item) => masked(item, key));
  if (isPlain(value)) {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, masked(v, k)]));
  }
  return isSecretKey(key) && value !== undefined && value !== null ? "[hidden]" : value;
}
