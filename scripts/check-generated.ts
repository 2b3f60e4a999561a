// Fails when the checked-in generated code differs from what the .proto files generate.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const committed = "packages/contracts/src/gen";

function filesBelow(folder: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const full = path.join(entry.parentPath, entry.name);
    files.set(path.relative(folder, full), readFileSync(full, "utf8"));
  }
  return files;
}

const scratch = mkdtempSync(path.join(tmpdir(), "covenant-gen-"));
try {
  const result = spawnSync("buf", ["generate", "--output", scratch], { encoding: "utf8" });
  if (result.status !== 0) {
    process.stderr.write(result.stderr);
    process.exit(1);
  }
  const fresh = filesBelow(path.join(scratch, committed));
  const present = filesBelow(committed);
  const names = new Set([...fresh.keys(), ...present.keys()]);
  const different = [...names].filter((name) => fresh.get(name) !== present.get(name));
  if (different.length > 0) {
    process.stderr.write(
      `Generated code is out of date (${different.join(", ")}): run \`npm run generate\` and commit.\n`,
    );
    process.exit(1);
  }
  process.stdout.write(`${names.size} generated files match proto/.\n`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
