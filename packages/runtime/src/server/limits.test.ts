import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectTcp } from "node:net";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import type { ConnectRouter } from "@connectrpc/connect";
import { Code, ConnectError, createClient as createConnectClient } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { ErrorDetailSchema } from "@covenant/contracts/common";
import { Validator } from "@covenant/contracts/gauntlet";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import fc from "fast-check";
import type { CovenantError } from "../errors/covenant-error.ts";
import { TestMesh } from "../testing.ts";
import { systemClock } from "../time/clock.ts";
import { boundDeadline } from "./adapter.ts";
import { DEFAULT_LIMITS } from "./limits.ts";

const forever = () => new Promise<never>(() => undefined);

function routes(router: ConnectRouter): void {
  router.service(Validator, {
    getRound: ({ round }) => ({ round: { round } }),
    // Ignores its signal, as buggy handlers do.
    getRun: forever,
    async *watchRounds() {
      yield { round: { round: 1 } };
      await forever();
    },
    getScorecard: () => {
      throw new TypeError("a secret of the process");
    },
    getWeights: () => ({ shares: { big: 1, ["x".repeat(4096)]: 1 } }),
  });
  router.service(CheckpointRegistry, {
    putChunks: async (requests) => {
      let storedChunks = 0;
      for await (const _ of requests) storedChunks++;
      return { storedChunks };
    },
  });
}

test("a unary call ends at its deadline although the handler does not", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url } = await mesh.serve(routes, { limits: { defaultDeadlineMs: 50 } });
  const client = await mesh.client(Validator, url, { name: "operator" });
  await assert.rejects(client.getRun({}, { timeoutMs: 30 }), { code: "COV_DEADLINE_EXCEEDED" });
  // The client sets none: the server's default ends the call.
  await assert.rejects(client.getRun({}, { timeoutMs: 0 }), { code: "COV_DEADLINE_EXCEEDED" });
  assert.equal((await client.getRound({ round: 2 })).round?.round, 2);
});

test("deadlines are set where absent and cut where too long, in both notations", () => {
  const limits = { ...DEFAULT_LIMITS, defaultDeadlineMs: 1000, maxDeadlineMs: 5000 };
  const bounded = (type: string, name: string, value?: string) => {
    const header = new Headers({ "content-type": type, ...(value && { [name]: value }) });
    boundDeadline(header, limits);
    return header.get(name);
  };
  const grpc = (value?: string) => bounded("application/grpc+proto", "grpc-timeout", value);
  assert.deepEqual(
    [grpc(), grpc("2S"), grpc("1H"), grpc("6000000u"), grpc("nonsense")],
    ["1000m", "2S", "5000m", "5000m", "nonsense"],
  );
  const connect = (value?: string) => bounded("application/json", "connect-timeout-ms", value);
  assert.deepEqual([connect(), connect("200"), connect("9999")], ["1000", "200", "5000"]);
});

test("a stream on which nothing moves is ended, with a code that says come back", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url } = await mesh.serve(routes, { limits: { streamIdleMs: 40 } });
  const client = await mesh.client(Validator, url, { name: "operator" });
  const seen: unknown[] = [];
  const error = await collect(client.watchRounds({}), seen);
  assert.equal(seen.length, 1);
  assert.equal(error?.code, "COV_STREAM_IDLE");
  assert.equal(error?.retryable, true);
  const registry = await mesh.client(CheckpointRegistry, url, { name: "operator" });
  async function* stalled() {
    yield { uploadId: "u" };
    await forever();
  }
  await assert.rejects(registry.putChunks(stalled()), { code: "COV_STREAM_IDLE" });
});

test("messages beyond the limit are refused by a typed error in every protocol", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url } = await mesh.serve(routes, { limits: { messageBytes: 1024 } });
  const files = await mesh.certificate("operator");
  const [ca, key, cert] = [files.caFile, files.keyFile, files.certFile].map((f) => readFileSync(f));
  const options = { baseUrl: url, nodeOptions: { ca, key, cert }, idleConnectionTimeoutMs: 100 };
  const big = { hotkey: "r".repeat(5000) };
  for (const transport of [
    createGrpcTransport(options),
    createGrpcWebTransport({ ...options, httpVersion: "2" }),
    createConnectTransport({ ...options, httpVersion: "2" }),
    createGrpcTransport({ ...options, sendCompression: compressionGzip }),
  ]) {
    const client = createConnectClient(Validator, transport);
    const error = await client.explainScore(big).catch(ConnectError.from);
    assert.ok(error instanceof ConnectError);
    assert.equal(error.code, Code.ResourceExhausted);
    assert.equal(error.findDetails(ErrorDetailSchema)[0]?.code, "COV_MESSAGE_TOO_LARGE");
    const upload = createConnectClient(CheckpointRegistry, transport);
    async function* chunks() {
      yield { uploadId: "u", data: new Uint8Array(5000) };
    }
    const streamed = await upload.putChunks(chunks()).catch(ConnectError.from);
    assert.ok(streamed instanceof ConnectError);
    assert.equal(streamed.findDetails(ErrorDetailSchema)[0]?.code, "COV_MESSAGE_TOO_LARGE");
    const answer = await client.getWeights({}).catch(ConnectError.from);
    assert.ok(answer instanceof ConnectError);
    assert.equal(answer.findDetails(ErrorDetailSchema)[0]?.code, "COV_MESSAGE_TOO_LARGE");
  }
});

test("bodies that are no message are the caller's fault, whatever they hold", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url, lines } = await mesh.serve(routes);
  const files = await mesh.certificate("operator");
  const [ca, key, cert] = [files.caFile, files.keyFile, files.certFile].map((f) => readFileSync(f));
  const session = connectHttp2(url, { ca, key, cert } as object);
  t.after(() => session.destroy());
  const post = (path: string, type: string, body: Uint8Array) =>
    new Promise<Record<string, unknown>>((resolve, reject) => {
      const stream = session.request({ ":method": "POST", ":path": path, "content-type": type });
      const answer: Record<string, unknown> = {};
      const chunks: Buffer[] = [];
      stream.on("response", (headers) => Object.assign(answer, headers));
      stream.on("trailers", (headers) => Object.assign(answer, headers));
      stream.on("data", (chunk) => chunks.push(chunk));
      stream.on("close", () => resolve({ ...answer, body: Buffer.concat(chunks).toString() }));
      stream.on("error", reject);
      stream.end(body);
    });
  const path = "/covenant.gauntlet.v1.Validator/GetRound";
  const noProtobuf = Uint8Array.of(0x0f, 0xff, 0xff);
  const framed = encodeEnvelope(0, noProtobuf);
  const grpc = await post(path, "application/grpc", framed);
  assert.equal(grpc["grpc-status"], String(Code.InvalidArgument));
  assert.match(String(grpc["grpc-status-details-bin"]), /./);
  const web = await post(path, "application/grpc-web", framed);
  assert.match(String(web.body), /grpc-status: 3\r\n/);
  const connect = await post(path, "application/proto", noProtobuf);
  assert.equal(JSON.parse(String(connect.body)).code, "invalid_argument");
  const json = await post(path, "application/json", Buffer.from("{nonsense"));
  assert.equal(JSON.parse(String(json.body)).code, "invalid_argument");
  const types = ["application/grpc", "application/grpc-web+proto", "application/proto", "text/x"];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...types),
      fc.uint8Array({ maxLength: 64 }),
      async (type, body) => {
        const answer = await post(path, type, body);
        const { "grpc-status": status } = answer;
        assert.notEqual(status, String(Code.Internal), JSON.stringify(answer));
        assert.ok(Number(answer[":status"]) < 500, JSON.stringify(answer));
      },
    ),
    { numRuns: 150 },
  );
  assert.deepEqual(
    lines.filter(({ level }) => level === "error"),
    [],
  );
});

test("a fault of a handler is hidden from the caller and logged with its cause", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url, lines } = await mesh.serve(routes);
  const client = await mesh.client(Validator, url, { name: "operator" });
  await assert.rejects(client.getScorecard({}), (error: CovenantError) => {
    assert.equal(error.code, "COV_INTERNAL");
    assert.ok(!JSON.stringify([error.message, error.metadata]).includes("secret"));
    return true;
  });
  const logged = lines.filter(({ level }) => level === "error");
  assert.equal(logged.length, 1);
  assert.match(JSON.stringify(logged), /a secret of the process/);
});

test("noise on the port, plain or inside TLS, harms nobody", async (t) => {
  const mesh = await TestMesh.create(t);
  const { url, port, caFile } = await mesh.serve(routes);
  const client = await mesh.client(Validator, url, { name: "operator" });
  const noise = [
    "GET / HTTP/1.1\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxx",
    "\x00\xff".repeat(300),
    "",
  ];
  for (const text of noise) {
    for (const protocols of [undefined, ["h2"], ["http/1.1"]]) {
      const socket = protocols
        ? connectTls({
            port,
            host: "127.0.0.1",
            ca: readFileSync(caFile),
            ALPNProtocols: protocols,
          })
        : connectTcp({ port, host: "127.0.0.1" });
      socket.on("error", () => undefined);
      const ready = protocols ? "secureConnect" : "connect";
      await new Promise((resolve) => socket.once(ready, resolve));
      socket.write(Buffer.from(text, "latin1"));
      socket.end();
      socket.resume();
      await new Promise((resolve) => socket.once("close", resolve));
    }
  }
  assert.equal((await client.getRound({ round: 3 })).round?.round, 3);
});

test("draining: what is in flight finishes, what waits is told, what is new is refused", async (t) => {
  const mesh = await TestMesh.create(t);
  const started = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const { url, server } = await mesh.serve(
    (router) => {
      router.service(Validator, {
        getRound: async () => {
          started.resolve();
          await release.promise;
          return { round: { round: 7 } };
        },
        async *watchRounds() {
          yield { round: { round: 1 } };
          await forever();
        },
        async *getMergedUpdate() {
          for (let i = 0; i < 20; i++) {
            yield { data: Uint8Array.of(i) };
            await systemClock.sleep(10);
          }
        },
      });
    },
    { limits: { drainStreamIdleMs: 100 } },
  );
  const client = await mesh.client(Validator, url, { name: "operator" });
  const unary = client.getRound({});
  const watched: unknown[] = [];
  const watch = collect(client.watchRounds({}), watched);
  const pieces: unknown[] = [];
  const transfer = collect(client.getMergedUpdate({}), pieces);
  await started.promise;
  while (watched.length === 0 || pieces.length === 0) await systemClock.sleep(1);
  const drained = server.drain(10_000);
  const late = await mesh.client(Validator, url, { name: "operator" });
  await assert.rejects(late.announceUpdate({}), { code: "COV_UNAVAILABLE" });
  assert.equal((await watch)?.code, "COV_DRAINING");
  assert.equal(await transfer, undefined);
  assert.equal(pieces.length, 20);
  release.resolve();
  assert.equal((await unary).round?.round, 7);
  await drained;
});

test("draining gives up at its limit and tells handlers", async (t) => {
  const mesh = await TestMesh.create(t);
  const started = Promise.withResolvers<AbortSignal>();
  const { url, server } = await mesh.serve((router) => {
    router.service(Validator, {
      getRun: (_, context) => {
        started.resolve(context.signal);
        return forever();
      },
    });
  });
  const client = await mesh.client(Validator, url, { name: "operator" });
  const call = client.getRun({}).catch((error: CovenantError) => error);
  const signal = await started.promise;
  await server.drain(30);
  assert.ok(signal.aborted);
  assert.equal(((await call) as CovenantError).status, "unavailable");
});

/** Reads a stream to its end; the error it ended with, if any. */
async function collect(
  stream: AsyncIterable<unknown>,
  into: unknown[],
): Promise<CovenantError | undefined> {
  try {
    for await (const message of stream) into.push(message);
    return undefined;
  } catch (error) {
    return error as CovenantError;
  }
}
