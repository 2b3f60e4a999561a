// Brings a checkpoint from a mesh's registry onto this machine, verified against its root.
import path from "node:path";
import { readCheckpointDirectory, receiveCheckpoint } from "@covenant/checkpoints";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import { CovenantError, createClient, readFileLimited } from "@covenant/runtime";
import type { Ports } from "./mesh/layout.ts";
import type { VerifiedCheckpoint } from "./verify-receipt.ts";

const portsFileBytesMax = 4096;
const checkpointBytesMax = 2 ** 34;

/** Client of the registry of the mesh in `dataDirectory`, as its operator. */
export async function registryOfMesh(dataDirectory: string) {
  const ports = await readPorts(dataDirectory);
  const pki = path.join(dataDirectory, "pki");
  const caFile = path.join(pki, "ca.crt");
  return createClient(CheckpointRegistry, {
    url: `https://127.0.0.1:${ports.registry}`,
    caFile,
    tls: {
      caFile,
      certFile: path.join(pki, "operator.crt"),
      keyFile: path.join(pki, "operator.key"),
    },
  });
}

/** The files of the checkpoint with this root; kept below the mesh's directory, so that a second call is local. */
export async function fetchCheckpoint(
  dataDirectory: string,
  root: Uint8Array,
): Promise<VerifiedCheckpoint> {
  const registry = await registryOfMesh(dataDirectory);
  const directory = path.join(dataDirectory, "received", Buffer.from(root).toString("hex"));
  const { files } = await receiveCheckpoint(registry, root, { directory });
  return {
    root,
    files: await readCheckpointDirectory(directory, { maxBytes: checkpointBytesMax, paths: files }),
  };
}

async function readPorts(dataDirectory: string): Promise<Ports> {
  try {
    const bytes = await readFileLimited(path.join(dataDirectory, "ports.json"), portsFileBytesMax);
    return JSON.parse(Buffer.from(bytes).toString()) as Ports;
  } catch (error) {
    throw new CovenantError("COV_MESH_NOT_FOUND", `There is no mesh in ${dataDirectory}.`, {
      remedy: "Start one with `npm start`, or name its directory with --data.",
      cause: error,
    });
  }
}
