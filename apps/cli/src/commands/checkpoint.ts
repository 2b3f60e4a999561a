// `covenant checkpoint`: list what the registry holds, export one as a Hugging Face directory.
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { CheckpointStage } from "@covenant/contracts/registry";
import { CovenantError, writeFileAtomic } from "@covenant/runtime";
import type { Command } from "commander";
import { fetchCheckpoint, registryOfMesh } from "../fetch-checkpoint.ts";
import { formatBytes, table } from "../show/format.ts";

const listMax = 200;

export function addCheckpointCommands(program: Command): void {
  const checkpoint = program.command("checkpoint").description("Checkpoints of a mesh.");
  checkpoint
    .command("list")
    .description("List checkpoints, newest first.")
    .option("--data <directory>", "data directory of the mesh", ".covenant/mesh")
    .option("--json", "print JSON", false)
    .action(list);
  checkpoint
    .command("export")
    .description("Write a checkpoint as a directory that `transformers` opens.")
    .argument("<root>", "root of the checkpoint, 64 hex digits (see checkpoint list)")
    .argument("<directory>", "where to write it; must not exist")
    .option("--data <directory>", "data directory of the mesh", ".covenant/mesh")
    .action(exportTo);
}

const stageName = (stage: CheckpointStage) =>
  Object.entries(CheckpointStage)
    .find(([, value]) => value === stage)?.[0]
    .toLowerCase() ?? "unknown";

async function list(flags: { data: string; json: boolean }): Promise<void> {
  const registry = await registryOfMesh(flags.data);
  const { checkpoints } = await registry.listCheckpoints({ pageSize: listMax });
  const rows = checkpoints.map(({ manifest, pinned, storedBytes }) => ({
    stage: stageName(manifest?.stage ?? CheckpointStage.UNSPECIFIED),
    version: manifest?.version ?? 0,
    root: Buffer.from(manifest?.root ?? []).toString("hex"),
    storedBytes: Number(storedBytes),
    pinned,
  }));
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
    return;
  }
  const lines = table([
    ["stage", "version", "size", "pinned", "root"],
    ...rows.map((row) => [
      row.stage,
      String(row.version),
      formatBytes(row.storedBytes),
      row.pinned ? "yes" : "",
      row.root,
    ]),
  ]);
  process.stdout.write(`${lines.join("\n")}\n`);
}

async function exportTo(root: string, directory: string, flags: { data: string }): Promise<void> {
  if (!/^[0-9a-f]{64}$/.test(root)) {
    throw new CovenantError("COV_CONFIG_INVALID", `"${root}" is not a checkpoint root.`, {
      remedy: "Give 64 hex digits; `covenant checkpoint list` shows them.",
    });
  }
  const { files } = await fetchCheckpoint(flags.data, Buffer.from(root, "hex"));
  await mkdir(path.dirname(path.resolve(directory)), { recursive: true });
  await mkdir(directory).catch((error: unknown) => {
    throw new CovenantError("COV_CONFIG_INVALID", `${directory} exists already.`, {
      remedy: "Name a directory that does not exist.",
      cause: error,
    });
  });
  for (const file of files) {
    const target = path.join(directory, file.path);
    await mkdir(path.dirname(target), { recursive: true });
    await writeFileAtomic(target, file.data);
  }
  process.stdout.write(`${files.length} files in ${directory}\n`);
}
