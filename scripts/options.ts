// What the scripts say to whoever starts them: how they are called, and why they end.
import process from "node:process";
import { type ParseArgsConfig, type ParseArgsOptionsConfig, parseArgs } from "node:util";

/** A call that cannot be understood, as sysexits.h has it. */
export const usageStatus = 64;

/** Ends the script with a sentence. */
export function fail(sentence: string, status = 1): never {
  process.stderr.write(`${sentence}\n`);
  process.exit(status);
}

type Strict<T extends ParseArgsOptionsConfig> = ParseArgsConfig & { options: T; strict: true };

/**
 * The options of the command line, which are those of `parseArgs`. With --help or -h the script prints its help and ends
 * well; with anything that it does not know it says so, in front of the help.
 */
export function parseOptions<T extends ParseArgsOptionsConfig>(
  options: T,
  help: string,
): ReturnType<typeof parseArgs<Strict<T>>>["values"] {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(help);
    process.exit(0);
  }
  try {
    return parseArgs<Strict<T>>({ options, args, strict: true }).values;
  } catch (error) {
    // What Node adds on positional arguments does not hold here.
    const [sentence] = String(error instanceof Error ? error.message : error).split(". ");
    return fail(`${sentence}.\n${help.trimEnd()}`, usageStatus);
  }
}

/** A whole number above zero that the option `name` was given. */
export function positive(name: string, text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) fail(`--${name} takes a whole number above 0.`, usageStatus);
  return Number(text);
}
