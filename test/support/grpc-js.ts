// Stock gRPC clients, made from the .proto files as any other project would make them.
import { readFileSync } from "node:fs";
import path from "node:path";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { repository } from "./mesh-process.ts";

const callTimeoutMs = 20_000;

/** A unary call by name: plain objects in and out. */
export type UnaryCall = (method: string, request: object) => Promise<Record<string, unknown>>;

/** Loads `service` (for example "covenant.registry.v1.CheckpointRegistry") and connects to `address`. */
export function stockClient(options: {
  protoFile: string;
  service: string;
  address: string;
  pkiDirectory: string;
  certificate?: string;
}): {
  call: UnaryCall;
  serverStream: (
    method: string,
    request: object,
  ) => grpc.ClientReadableStream<Record<string, unknown>>;
  close: () => void;
} {
  const definition = loadSync(options.protoFile, {
    includeDirs: [path.join(repository, "proto")],
    keepCase: false,
    longs: String,
    enums: String,
    bytes: Buffer,
    defaults: true,
  });
  const loaded = grpc.loadPackageDefinition(definition);
  const Constructor = options.service
    .split(".")
    .reduce<unknown>(
      (scope, name) => (scope as Record<string, unknown>)[name],
      loaded,
    ) as grpc.ServiceClientConstructor;
  const file = (name: string) => readFileSync(path.join(options.pkiDirectory, name));
  const credentials = options.certificate
    ? grpc.credentials.createSsl(
        file("ca.crt"),
        file(`${options.certificate}.key`),
        file(`${options.certificate}.crt`),
      )
    : grpc.credentials.createSsl(file("ca.crt"));
  const client = new Constructor(options.address, credentials);
  return {
    call: (method, request) =>
      new Promise((resolve, reject) => {
        const unary = client[method] as (
          request: object,
          options: object,
          done: (error: grpc.ServiceError | null, response: Record<string, unknown>) => void,
        ) => void;
        unary.call(client, request, { deadline: Date.now() + callTimeoutMs }, (error, response) =>
          error ? reject(error) : resolve(response),
        );
      }),
    serverStream: (method, request) => {
      const stream = client[method] as (
        request: object,
      ) => grpc.ClientReadableStream<Record<string, unknown>>;
      return stream.call(client, request);
    },
    close: () => client.close(),
  };
}
