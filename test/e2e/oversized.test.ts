// Bodies no honest client sends: too large, malformed, lying about their size. The service answers each with a typed error and lives.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { connect } from "node:net";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { ErrorDetailSchema } from "@covenant/contracts/common";
import { createDevelopmentCa, issueCertificate } from "@covenant/runtime";
import * as grpc from "@grpc/grpc-js";
import { ServiceProcess, scratchDirectory } from "../support/service-process.ts";

const limitBytes = 16 << 20;
const callTimeoutMs = 120_000;
const code = grpc.status;

/** The services under test, and a harmless call that an operator may make on each. */
const services = [
  {
    name: "checkpoint-registry",
    method: "covenant.registry.v1.CheckpointRegistry/ListCheckpoints",
    upload: "covenant.registry.v1.CheckpointRegistry/PutChunks",
  },
  { name: "basilica-scheduler", method: "covenant.basilica.v1.Scheduler/ListJobs" },
];

interface Answer {
  status: number;
  error: { code?: string; details?: { type: string; value: string }[] };
}

for (const { name, method, upload } of services) {
  describe(`unreasonable bodies for ${name}`, { timeout: 600_000 }, () => {
    const { directory, remove } = scratchDirectory();
    const service = new ServiceProcess(name, `services/${name}/src/main.ts`, directory);
    let endpoint: string;
    let pid: number | undefined;
    let files: { ca: Buffer; cert: Buffer; key: Buffer };

    before(async () => {
      const pki = path.join(directory, "pki");
      await createDevelopmentCa(pki);
      const tls = await issueCertificate(pki, name);
      const operator = await issueCertificate(pki, "operator");
      files = {
        ca: readFileSync(operator.caFile),
        cert: readFileSync(operator.certFile),
        key: readFileSync(operator.keyFile),
      };
      endpoint = await service.serve({
        listen: { host: "127.0.0.1", port: 0 },
        tls,
        dataDirectory: path.join(directory, "data"),
      });
      pid = service.pid;
    });
    after(async () => {
      assert.equal(await service.kill("SIGTERM"), 0, service.log.slice(-2000));
      remove();
    });

    /** One Connect call over HTTP/1.1 with a body of any kind. */
    const post = (body: Uint8Array, headers: Record<string, string>) =>
      new Promise<Answer>((resolve, reject) => {
        const [host, port] = endpoint.split(":");
        const call = request(
          {
            host,
            port,
            path: `/${method}`,
            method: "POST",
            ...files,
            headers,
            servername: "localhost",
          },
          (response) => {
            const pieces: Buffer[] = [];
            response.on("data", (piece: Buffer) => pieces.push(piece));
            response.on("error", reject);
            response.on("end", () => {
              const text = Buffer.concat(pieces).toString();
              try {
                const error = JSON.parse(text) as Answer["error"];
                resolve({ status: response.statusCode ?? 0, error });
              } catch {
                reject(new Error(`${response.statusCode}: not JSON: ${text.slice(0, 200)}`));
              }
            });
          },
        );
        call.setTimeout(callTimeoutMs, () => call.destroy(new Error("no answer")));
        call.on("error", reject);
        call.end(body);
      });

    /** One unary gRPC call with these bytes as its message. */
    const callGrpc = (message: Buffer, target = method) =>
      new Promise<grpc.ServiceError | undefined>((resolve) => {
        const client = new grpc.Client(
          endpoint,
          grpc.credentials.createSsl(files.ca, files.key, files.cert),
          {
            "grpc.max_send_message_length": -1,
            "grpc.ssl_target_name_override": "localhost",
          },
        );
        client.makeUnaryRequest(
          `/${target}`,
          (bytes: Buffer) => bytes,
          (bytes) => bytes,
          message,
          { deadline: Date.now() + callTimeoutMs },
          (error) => {
            client.close();
            resolve(error ?? undefined);
          },
        );
      });

    const assertServes = async () => {
      assert.ok(service.isAlive && service.pid === pid, service.log.slice(-4000));
      assert.equal(await callGrpc(Buffer.alloc(0)), undefined, "an honest call is served");
    };

    const assertTyped = ({ status, error }: Answer, expected: string) => {
      assert.ok(status >= 400 && status < 500, `status ${status} ${JSON.stringify(error)}`);
      assert.equal(error.code, expected, JSON.stringify(error));
      const detail = error.details?.find(({ type }) => type === ErrorDetailSchema.typeName);
      assert.ok(detail, `no ErrorDetail in ${JSON.stringify(error)}`);
      const { code: name, remedy } = fromBinary(
        ErrorDetailSchema,
        Buffer.from(detail.value, "base64"),
      );
      assert.match(name, /^COV_/);
      assert.notEqual(remedy, "");
    };

    it("refuses a body above 16 MiB, over Connect and over gRPC", async () => {
      const body = Buffer.alloc(limitBytes + 1024);
      for (const type of ["application/proto", "application/json"]) {
        assertTyped(await post(body, { "content-type": type }), "resource_exhausted");
      }
      assert.equal((await callGrpc(body))?.code, code.RESOURCE_EXHAUSTED);
      await assertServes();
    });

    it("refuses what unpacks to more than 16 MiB", async () => {
      const bomb = gzipSync(Buffer.alloc(limitBytes * 8));
      assert.ok(bomb.length < limitBytes / 50);
      const headers = { "content-type": "application/proto", "content-encoding": "gzip" };
      assertTyped(await post(bomb, headers), "resource_exhausted");
      await assertServes();
    });

    it("refuses garbage, as protobuf and as JSON", async () => {
      const garbage = Buffer.concat([Buffer.from([0xff, 0xff, 0xff]), randomBytes(1 << 16)]);
      assertTyped(await post(garbage, { "content-type": "application/proto" }), "invalid_argument");
      const texts = ["{", '{"pageSize": "many"}', "[".repeat(1 << 20), "\0\0"];
      for (const text of texts) {
        const headers = { "content-type": "application/json" };
        assertTyped(await post(Buffer.from(text), headers), "invalid_argument");
      }
      const refused = await callGrpc(garbage);
      assert.equal(refused?.code, code.INVALID_ARGUMENT, refused?.message);
      await assertServes();
    });

    it("survives strangers that speak no TLS, and ones that fall silent", async () => {
      const [host, port] = endpoint.split(":");
      const silent = connect(Number(port), host);
      const loud = connect(Number(port), host);
      for (const socket of [silent, loud]) socket.on("error", () => {});
      const closed = new Promise((resolve) => loud.once("close", resolve));
      loud.end(randomBytes(1 << 16));
      loud.resume();
      await closed;
      await assertServes();
      silent.destroy();
    });

    if (upload) {
      it("refuses a chunk that is no chunk, and goes on serving", async () => {
        for (const message of [randomBytes(1 << 12), Buffer.alloc(limitBytes + 1)]) {
          const refused = await callGrpc(message, upload);
          assert.ok(refused, "an upload of garbage must not succeed");
          const expected = [code.INVALID_ARGUMENT, code.NOT_FOUND, code.RESOURCE_EXHAUSTED];
          assert.ok(expected.includes(refused.code), `${refused.code} ${refused.message}`);
        }
        await assertServes();
      });
    }
  });
}
