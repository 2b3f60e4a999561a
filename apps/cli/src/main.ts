// The `covenant` command: parses, dispatches, maps errors to exit codes.
import { fromUnknown } from "@covenant/runtime";
import { Command } from "commander";
import { addCheckpointCommands } from "./commands/checkpoint.ts";
import { addTokenizerCommands } from "./commands/tokenizer.ts";
import { addUpCommand } from "./commands/up.ts";
import { addVerifyCommand } from "./commands/verify.ts";
import { printError } from "./terminal.ts";

/** Exit code of wrong usage, as sysexits.h has it. */
const exitUsage = 64;

const program = new Command("covenant")
  .description("Covenant Mesh: trains language models on machines nobody has to trust.")
  .showHelpAfterError("(covenant --help shows how)")
  .showSuggestionAfterError()
  .exitOverride((error) => {
    process.exit(error.exitCode === 0 ? 0 : exitUsage);
  });

addUpCommand(program);
addVerifyCommand(program);
addCheckpointCommands(program);
addTokenizerCommands(program);

try {
  await program.parseAsync();
} catch (error) {
  const known = fromUnknown(error);
  printError(known);
  process.exit(known.code === "COV_CONFIG_INVALID" ? exitUsage : 1);
}
