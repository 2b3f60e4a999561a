// Writes the reference model: node test/vectors/checkpoints/write-export.ts DIRECTORY [F32|BF16]
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { referenceFiles } from "./reference-model.ts";

const [directory, dtype = "F32"] = process.argv.slice(2);
if (!directory || (dtype !== "F32" && dtype !== "BF16")) {
  throw new Error("Usage: write-export.ts DIRECTORY [F32|BF16]");
}
mkdirSync(directory, { recursive: true });
for (const { path, data } of referenceFiles(dtype)) writeFileSync(join(directory, path), data);
