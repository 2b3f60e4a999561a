/** Writes docs/reference/errors.md from the catalogue. Run: node packages/runtime/scripts/error-docs.ts */
import { writeFile } from "node:fs/promises";
import { errorReference } from "../src/errors/reference.ts";

await writeFile(new URL("../../../docs/reference/errors.md", import.meta.url), errorReference());
