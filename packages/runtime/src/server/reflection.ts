/** grpc.reflection.v1: lets generic clients (grpcurl, buf curl) discover services and messages. */
import type { DescFile, DescMessage, DescService } from "@bufbuild/protobuf";
import { toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { ConnectRouter } from "@connectrpc/connect";
import type { ServerReflectionRequest } from "@covenant/contracts/grpc";
import { ServerReflection } from "@covenant/contracts/grpc";

const NOT_FOUND = 5;
const REQUESTS_MAX = 1000;

interface Index {
  files: Map<string, DescFile>;
  symbols: Map<string, DescFile>;
  services: string[];
}

/** Adds the service to a router; `services` is read at the first request. */
export function registerReflection(
  router: ConnectRouter,
  services: () => readonly DescService[],
): void {
  let index: Index | undefined;
  router.service(ServerReflection, {
    async *serverReflectionInfo(requests) {
      index ??= buildIndex(services());
      let count = 0;
      for await (const request of requests) {
        if (++count > REQUESTS_MAX) return;
        yield { validHost: request.host, originalRequest: request, ...answer(index, request) };
      }
    },
  });
}

function answer(index: Index, { messageRequest: request }: ServerReflectionRequest) {
  switch (request.case) {
    case "listServices": {
      const service = index.services.map((name) => ({ name }));
      return { messageResponse: { case: "listServicesResponse" as const, value: { service } } };
    }
    case "fileByFilename":
      return fileAnswer(index.files.get(request.value), request.value);
    case "fileContainingSymbol":
      return fileAnswer(index.symbols.get(request.value), request.value);
    default:
      return failure(`The mesh has no protobuf extensions (${request.case ?? "empty request"})`);
  }
}

/** The file and, first to last, everything it imports. */
function fileAnswer(file: DescFile | undefined, name: string) {
  if (!file) return failure(`Nothing here is named "${name}"`);
  const needed = new Map<string, DescFile>();
  collectFiles(file, needed);
  const fileDescriptorProto = [...needed.values()]
    .reverse()
    .map((each) => toBinary(FileDescriptorProtoSchema, each.proto));
  const value = { fileDescriptorProto };
  return { messageResponse: { case: "fileDescriptorResponse" as const, value } };
}

function failure(errorMessage: string) {
  const value = { errorCode: NOT_FOUND, errorMessage };
  return { messageResponse: { case: "errorResponse" as const, value } };
}

function buildIndex(services: readonly DescService[]): Index {
  const files = new Map<string, DescFile>();
  for (const service of services) collectFiles(service.file, files);
  const symbols = new Map<string, DescFile>();
  for (const file of files.values()) {
    for (const message of file.messages) addMessage(symbols, message);
    for (const each of file.enums) symbols.set(each.typeName, file);
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const { name } of service.methods) symbols.set(`${service.typeName}.${name}`, file);
    }
  }
  return { files, symbols, services: services.map(({ typeName }) => typeName).sort() };
}

function addMessage(symbols: Map<string, DescFile>, message: DescMessage): void {
  symbols.set(message.typeName, message.file);
  for (const field of message.fields)
    symbols.set(`${message.typeName}.${field.name}`, message.file);
  for (const each of message.nestedEnums) symbols.set(each.typeName, message.file);
  for (const each of message.nestedMessages) addMessage(symbols, each);
}

/** Keyed as importers write it, with the extension. */
function collectFiles(file: DescFile, into: Map<string, DescFile>): void {
  const name = file.proto.name;
  if (into.has(name)) return;
  for (const dependency of file.dependencies) collectFiles(dependency, into);
  into.set(name, file);
}
