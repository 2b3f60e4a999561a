import { CheckpointRegistry } from "@covenant/contracts/registry";
import { createClient } from "@covenant/runtime";

/** Client of the checkpoint registry. */
export type RegistryClient = ReturnType<typeof createRegistryClient>;

/** Creates a registry client for a participant. */
export function createRegistryClient(options: Parameters<typeof createClient>[1]) {
  return createClient(CheckpointRegistry, options);
}
