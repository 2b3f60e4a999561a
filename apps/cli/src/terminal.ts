// The terminal as the CLI uses it: where to draw, how errors look.
import type { CovenantError } from "@covenant/runtime";
import type { Screen } from "./show/render.ts";

const columnsDefault = 120;

/** Standard output; colour and redrawing only where somebody watches. */
export function terminal(): Screen {
  const isTerminal = process.stdout.isTTY === true && process.env.TERM !== "dumb";
  return {
    write: (text) => {
      process.stdout.write(text);
    },
    isTerminal,
    get columns() {
      return process.stdout.columns ?? columnsDefault;
    },
    colour: isTerminal && process.env.NO_COLOR === undefined,
  };
}

/** What was wrong, its code, and what to do. */
export function printError(error: CovenantError): void {
  process.stderr.write(`\n${error.message}\n${error.remedy}\n(${error.code})\n`);
}
