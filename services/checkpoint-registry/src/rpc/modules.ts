// What the handlers share.

import { fromBinary } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { toHex } from "@covenant/contracts";
import { type CheckpointManifest, CheckpointManifestSchema } from "@covenant/contracts/registry";
import { type Clock, CovenantError, type Logger, principalOf } from "@covenant/runtime";
import type { Kysely } from "kysely";
import type { Announcements } from "../announcements.ts";
import type { RegistryLimits } from "../config.ts";
import { type CheckpointRow, findCheckpoint } from "../store/checkpoint-index.ts";
import type { ChunkVault } from "../store/chunk-vault.ts";
import type { RegistryTables } from "../store/schema.ts";
import type { Uploader } from "../store/upload-index.ts";

/** Collaborators of the handlers. */
export interface RegistryModules {
  database: Kysely<RegistryTables>;
  vault: ChunkVault;
  announcements: Announcements;
  limits: RegistryLimits;
  clock: Clock;
  logger: Logger;
}

/** The visible checkpoint of a root; `COV_CHECKPOINT_NOT_FOUND` when there is none. */
export async function requireCheckpoint(
  modules: RegistryModules,
  root: Uint8Array,
): Promise<CheckpointRow> {
  if (root.length !== 32) {
    throw new CovenantError("COV_INVALID_ARGUMENT", `A root has 32 bytes, not ${root.length}`);
  }
  const row = await findCheckpoint(modules.database, toHex(root));
  return row ?? notFound(root);
}

function notFound(root: Uint8Array): never {
  const message = `No checkpoint ${toHex(root)}`;
  throw new CovenantError("COV_CHECKPOINT_NOT_FOUND", message, { metadata: { root: toHex(root) } });
}

/** The manifest of a row, as it was committed. */
export function manifestOf(row: { manifest: Uint8Array }): CheckpointManifest {
  return fromBinary(CheckpointManifestSchema, row.manifest);
}

/** Who calls, as uploads remember it: the hotkey if one was proven, otherwise the certificate's name. */
export function uploaderOf(context: HandlerContext): Uploader {
  const { hotkey, service, roles } = principalOf(context);
  const trusted = roles.some((role) => role === "operator" || role.startsWith("service:"));
  if (hotkey === undefined && service === undefined) {
    throw new CovenantError("COV_UNAUTHENTICATED", "Uploads need an identity");
  }
  return { owner: hotkey ?? `service:${service}`, trusted };
}
