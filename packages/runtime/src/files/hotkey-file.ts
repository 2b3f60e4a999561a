/** Key files: 64 hex digits and a line end, readable by their owner alone. */
import { fromHex, type Hotkey, hotkeyFromSeed } from "@covenant/contracts";
import { CovenantError } from "../errors/covenant-error.ts";
import { readFileLimited } from "./files.ts";

const FILE_BYTES_MAX = 1024;
const SEED_PATTERN = /^[0-9a-f]{64}$/i;

/** The hotkey whose 32-byte seed a file holds as hex. `COV_IDENTITY_CORRUPT` when it holds anything else. */
export async function readHotkeyFile(path: string): Promise<Hotkey> {
  const text = new TextDecoder().decode(await readFileLimited(path, FILE_BYTES_MAX)).trim();
  if (SEED_PATTERN.test(text)) return hotkeyFromSeed(fromHex(text.toLowerCase()));
  // The content is a secret, or somebody's other file: it is not repeated.
  throw new CovenantError("COV_IDENTITY_CORRUPT", `${path} does not hold a key of 64 hex digits.`, {
    remedy: "Restore the file from a backup; a new key is a new identity without its rewards.",
    metadata: { path },
  });
}
