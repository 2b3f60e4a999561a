import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { ConnectRouter } from "@connectrpc/connect";
import { ConnectError, createClient as createConnectClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { ErrorDetailSchema } from "@covenant/contracts/common";
import {
  GetRoundRequestSchema,
  GetRoundResponseSchema,
  Validator,
} from "@covenant/contracts/gauntlet";
import {
  Health,
  HealthCheckResponse_ServingStatus,
  ServerReflection,
} from "@covenant/contracts/grpc";
import * as grpcJs from "@grpc/grpc-js";
import { CovenantError } from "../errors/covenant-error.ts";
import { issueCertificate } from "../pki/pki.ts";
import { TestMesh } from "../testing.ts";

function routes(router: ConnectRouter): void {
  router.service(Validator, {
    getRound: ({ round }) => {
      if (round === 404) throw new CovenantError("COV_NOT_FOUND", "No round 404");
      return { round: { round } };
    },
    async *watchRounds({ fromRound }) {
      for (let round = fromRound; round < fromRound + 3; round++) yield { round: { round } };
    },
  });
}

test("a stock gRPC client is served: unary, stream, status and typed detail", async (t) => {
  const mesh = await TestMesh.create(t);
  const { port } = await mesh.serve(routes);
  const files = await mesh.certificate("operator");
  const [ca, key, cert] = [files.caFile, files.keyFile, files.certFile].map((f) => readFileSync(f));
  const credentials = grpcJs.credentials.createSsl(ca!, key!, cert!);
  const client = new grpcJs.Client(`127.0.0.1:${port}`, credentials, {
    "grpc.ssl_target_name_override": "localhost",
  });
  t.after(() => client.close());
  const path = "/covenant.gauntlet.v1.Validator/GetRound";
  const encode = (round: number) =>
    Buffer.from(toBinary(GetRoundRequestSchema, create(GetRoundRequestSchema, { round })));
  const decode = (bytes: Buffer) => fromBinary(GetRoundResponseSchema, bytes);
  const call = (round: number) =>
    new Promise<number | undefined>((resolve, reject) => {
      client.makeUnaryRequest(path, encode, decode, round, (error, answer) =>
        error ? reject(error) : resolve(answer?.round?.round),
      );
    });
  assert.equal(await call(5), 5);
  await assert.rejects(call(404), (error: grpcJs.ServiceError) => {
    assert.equal(error.code, grpcJs.status.NOT_FOUND);
    const [details] = error.metadata.get("grpc-status-details-bin") as Buffer[];
    assert.ok(details!.includes("COV_NOT_FOUND") && details!.includes("ErrorDetail"));
    return true;
  });
  const watch = "/covenant.gauntlet.v1.Validator/WatchRounds";
  const rounds: (number | undefined)[] = [];
  for await (const answer of client.makeServerStreamRequest(watch, encode, decode, 0)) {
    rounds.push((answer as ReturnType<typeof decode>).round?.round);
  }
  assert.deepEqual(rounds, [0, 1, 2]);
});

test("gRPC-Web and Connect are served on the same port over both HTTP versions", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url } = await mesh.serve(routes);
  const files = await mesh.certificate("console");
  const [ca, key, cert] = [files.caFile, files.keyFile, files.certFile].map((f) => readFileSync(f));
  for (const httpVersion of ["1.1", "2"] as const) {
    const options = { baseUrl: url, httpVersion, nodeOptions: { ca, key, cert } };
    for (const transport of [
      createGrpcWebTransport({ ...options, idleConnectionTimeoutMs: 100 }),
      createConnectTransport({ ...options, idleConnectionTimeoutMs: 100 }),
      createConnectTransport({ ...options, useBinaryFormat: false, idleConnectionTimeoutMs: 100 }),
    ]) {
      const client = createConnectClient(Validator, transport);
      assert.equal((await client.getRound({ round: 9 })).round?.round, 9);
      const rounds: (number | undefined)[] = [];
      for await (const { round } of client.watchRounds({ fromRound: 4 })) rounds.push(round?.round);
      assert.deepEqual(rounds, [4, 5, 6]);
      await assert.rejects(client.getRound({ round: 404 }), (error) => {
        assert.ok(error instanceof ConnectError);
        assert.equal(error.findDetails(ErrorDetailSchema)[0]?.code, "COV_NOT_FOUND");
        return true;
      });
    }
  }
});

test("plain HTTPS with JSON is enough", async (t) => {
  const mesh = await TestMesh.create(t);
  const { port, caFile } = await mesh.serve(routes);
  const options = { port, ca: readFileSync(caFile), method: "POST", host: "127.0.0.1" };
  const post = (path: string, body: string) =>
    new Promise<{ status?: number; text: string }>((resolve, reject) => {
      const headers = { "content-type": "application/json" };
      const request = httpsRequest({ ...options, path, headers, agent: false }, (response) => {
        let text = "";
        response.on("data", (chunk) => {
          text += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode!, text }));
      });
      request.on("error", reject);
      request.end(body);
    });
  const health = await post("/grpc.health.v1.Health/Check", "{}");
  assert.deepEqual(
    { ...health, text: JSON.parse(health.text) },
    {
      status: 200,
      text: { status: "SERVING" },
    },
  );
  const denied = await post("/covenant.gauntlet.v1.Validator/GetRound", "{}");
  assert.equal(denied.status, 401);
  assert.equal(JSON.parse(denied.text).code, "unauthenticated");
  assert.equal((await post("/no/such/path", "{}")).status, 404);
});

test("paths that are no RPC go to the hook, and what it leaves is not found", async (t) => {
  const mesh = await TestMesh.create(t);
  const { port, caFile } = await mesh.serve(routes, {
    http: (request, response) => {
      if (request.url !== "/v1/models") return false;
      response.end("models");
      return true;
    },
  });
  const get = (path: string) =>
    new Promise<number | undefined>((resolve, reject) => {
      const ca = readFileSync(caFile);
      httpsRequest({ host: "127.0.0.1", port, ca, path, agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });
  assert.equal(await get("/v1/models"), 200);
  assert.equal(await get("/v1/other"), 404);
});

test("certificates: the operator's is taken, a stranger's and an expired one are refused", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url, caFile } = await mesh.serve(routes);
  const operator = await mesh.client(Validator, url, { name: "operator" });
  assert.equal((await operator.getRound({ round: 1 })).round?.round, 1);
  const foreign = await TestMesh.create(t);
  const stranger = await foreign.certificate("operator");
  const expired = await issueCertificate(mesh.directory, "old-operator", { validDays: -2 });
  for (const tls of [stranger, expired]) {
    const client = await mesh.client(Validator, url, { tls, caFile });
    await assert.rejects(client.getRound({ round: 1 }), { code: "COV_CERTIFICATE_REJECTED" });
  }
  const distrustful = await mesh.client(Validator, url, { caFile: stranger.caFile });
  await assert.rejects(distrustful.getRound({ round: 1 }), { code: "COV_SERVER_NOT_TRUSTED" });
});

test("health answers anyone, by service, and tells watchers of the drain", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url, server } = await mesh.serve(routes);
  const client = await mesh.client(Health, url);
  const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;
  assert.equal((await client.check({})).status, SERVING);
  const { typeName } = Validator;
  assert.equal((await client.check({ service: typeName })).status, SERVING);
  await assert.rejects(client.check({ service: "nobody" }), { code: "COV_NOT_FOUND" });
  for await (const { status } of client.watch({ service: "nobody" })) {
    assert.equal(status, SERVICE_UNKNOWN);
    break;
  }
  const seen: number[] = [];
  try {
    for await (const { status } of client.watch({})) {
      seen.push(status);
      if (status === SERVING) void server.drain(2000);
    }
  } catch (error) {
    assert.ok(error instanceof CovenantError && error.retryable, String(error));
  }
  assert.deepEqual(seen, [SERVING, NOT_SERVING]);
});

test("reflection lists services and gives a message's file with its imports", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url } = await mesh.serve(routes);
  const client = await mesh.client(ServerReflection, url);
  const symbol = "covenant.gauntlet.v1.Validator.GetRound";
  async function* questions() {
    yield { messageRequest: { case: "listServices" as const, value: "" } };
    yield { messageRequest: { case: "fileContainingSymbol" as const, value: symbol } };
    yield { messageRequest: { case: "fileByFilename" as const, value: "none.proto" } };
  }
  const answers = [];
  for await (const { messageResponse } of client.serverReflectionInfo(questions())) {
    answers.push(messageResponse);
  }
  const [list, file, none] = answers;
  assert.ok(list?.case === "listServicesResponse");
  const names = list.value.service.map(({ name }) => name);
  for (const name of [Validator.typeName, Health.typeName, ServerReflection.typeName]) {
    assert.ok(names.includes(name), name);
  }
  assert.ok(file?.case === "fileDescriptorResponse");
  const files = file.value.fileDescriptorProto.map((bytes) =>
    fromBinary(FileDescriptorProtoSchema, bytes),
  );
  assert.equal(files[0]?.name, "covenant/gauntlet/v1/validator.proto");
  const known = new Set(files.map(({ name }) => name));
  for (const { dependency } of files)
    for (const name of dependency) assert.ok(known.has(name), name);
  assert.ok(none?.case === "errorResponse" && none.value.errorCode === grpcJs.status.NOT_FOUND);
});

test("an occupied port is named, with a remedy", async (t) => {
  const mesh = await TestMesh.create(t);
  const { port } = await mesh.serve(routes);
  const listen = { host: "127.0.0.1", port };
  await assert.rejects(mesh.serve(routes, { listen }), {
    code: "COV_PORT_IN_USE",
    message: new RegExp(String(port)),
    remedy: /listen\.port/,
  });
});

test("unusable certificate files are named", async (t) => {
  const mesh = await TestMesh.create(t);
  const tls = await mesh.certificate("gauntlet-validator");
  const missing = { ...tls, certFile: join(mesh.directory, "none.crt") };
  await assert.rejects(mesh.serve(routes, { tls: missing }), { code: "COV_FILE_NOT_FOUND" });
  const swapped = { ...tls, keyFile: tls.certFile };
  await assert.rejects(mesh.serve(routes, { tls: swapped }), { code: "COV_CONFIG_INVALID" });
});
