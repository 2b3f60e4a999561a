/** Checkpoint manifests and the registry's service. */
export * from "../gen/covenant/registry/v1/registry_pb.ts";
