// The service's methods, each in its file.
import type { ServiceImpl } from "@connectrpc/connect";
import type { CheckpointRegistry } from "@covenant/contracts/registry";
import {
  handleGetManifest,
  handleListCheckpoints,
  handlePin,
  handlePrune,
  handleVerify,
} from "./manage.ts";
import type { RegistryModules } from "./modules.ts";
import { handleStreamCheckpoint, handleWatchCheckpoints, OpenStreams } from "./stream.ts";
import { handleBeginUpload, handleCommitCheckpoint, handlePutChunks } from "./upload.ts";

/** Implements the proto's service on the modules. */
export function createHandlers(modules: RegistryModules): ServiceImpl<typeof CheckpointRegistry> {
  const streams = new OpenStreams({ what: "checkpoint", max: modules.limits.maxStreams });
  const watchers = new OpenStreams({ what: "watch", max: modules.limits.maxWatchers });
  return {
    beginUpload: (request, context) => handleBeginUpload(request, context, modules),
    putChunks: (requests, context) => handlePutChunks(requests, context, modules),
    commitCheckpoint: (request, context) => handleCommitCheckpoint(request, context, modules),
    getManifest: (request) => handleGetManifest(request, modules),
    streamCheckpoint: (request, context) =>
      handleStreamCheckpoint(request, context, modules, streams),
    watchCheckpoints: (request, context) =>
      handleWatchCheckpoints(request, context, modules, watchers),
    listCheckpoints: (request) => handleListCheckpoints(request, modules),
    pin: (request) => handlePin(request, modules),
    prune: (request) => handlePrune(request, modules),
    verify: (request, context) => handleVerify(request, context, modules),
  };
}
