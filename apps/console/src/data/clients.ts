// gRPC-Web clients of the services, all through the page's own origin.
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Scheduler } from "@covenant/contracts/basilica";
import { Validator } from "@covenant/contracts/gauntlet";
import { PostTraining } from "@covenant/contracts/grail";
import { CheckpointRegistry } from "@covenant/contracts/registry";

const transport = createGrpcWebTransport({ baseUrl: window.location.origin });

export const validator = createClient(Validator, transport);
export const postTraining = createClient(PostTraining, transport);
export const registry = createClient(CheckpointRegistry, transport);
export const scheduler = createClient(Scheduler, transport);
