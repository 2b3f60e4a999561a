import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { createServer as createTcpServer } from "node:net";
import { test } from "node:test";
import { Validator } from "@covenant/contracts/gauntlet";
import { CovenantError } from "../errors/covenant-error.ts";
import { TestMesh } from "../testing.ts";
import { createClient } from "./client.ts";

test("reads are repeated while the server is unavailable, changes never, and not without end", async (t) => {
  const mesh = await TestMesh.create(t);
  let calls = 0;
  let failures = 2;
  const flaky = () => {
    calls++;
    if (failures-- > 0) throw new CovenantError("COV_UNAVAILABLE", "Not now");
    return {};
  };
  const { url } = await mesh.serve((router) => {
    router.service(Validator, { getRound: flaky, explainScore: flaky });
  });
  const client = await mesh.client(Validator, url, { name: "operator" });
  await client.getRound({});
  assert.equal(calls, 3);
  failures = 1;
  calls = 0;
  await assert.rejects(client.explainScore({}), { code: "COV_UNAVAILABLE", retryable: true });
  assert.equal(calls, 1, "ExplainScore is no read by name, so it is not repeated");
  failures = Number.POSITIVE_INFINITY;
  calls = 0;
  await assert.rejects(client.getRound({}), { code: "COV_UNAVAILABLE" });
  assert.equal(calls, 4, "three retries and no more");
});

test("retries end when the budget is spent", async (t) => {
  const mesh = await TestMesh.create(t);
  let calls = 0;
  const { url } = await mesh.serve((router) => {
    router.service(Validator, {
      getRound: () => {
        calls++;
        throw new CovenantError("COV_UNAVAILABLE", "Not now");
      },
    });
  });
  const client = await mesh.client(Validator, url, { name: "operator" });
  const asked = 8;
  await Promise.allSettled(Array.from({ length: asked }, () => client.getRound({})));
  assert.equal(calls, asked + 10, "ten retries among all calls, not three for each");
});

test("errors of the server arrive with code, remedy, class and facts", async (t) => {
  const mesh = await TestMesh.create(t);
  const thrown = () => {
    throw new CovenantError("COV_DISK_FULL", "No space left to write /x", {
      remedy: "Free /x.",
      metadata: { path: "/x" },
    });
  };
  const { url } = await mesh.serve((router) => {
    router.service(Validator, {
      getRun: thrown,
      async *watchRounds() {
        yield {};
        thrown();
      },
    });
  });
  const client = await mesh.client(Validator, url, { name: "operator" });
  const expected = {
    code: "COV_DISK_FULL",
    message: "No space left to write /x",
    remedy: "Free /x.",
    retryable: true,
    metadata: { path: "/x" },
  };
  await assert.rejects(client.getRun({}), expected);
  await assert.rejects(async () => {
    for await (const _ of client.watchRounds({}));
  }, expected);
});

test("nobody there, and somebody there who does not speak TLS", async (t) => {
  const mesh = await TestMesh.create(t);
  const mute = createTcpServer((socket) => socket.end("hello")).listen(0, "127.0.0.1");
  t.after(() => mute.close());
  await new Promise((resolve) => mute.once("listening", resolve));
  const { port } = mute.address() as AddressInfo;
  const speaking = await mesh.client(Validator, `https://127.0.0.1:${port}`, { name: "operator" });
  await assert.rejects(speaking.announceUpdate({}), CovenantError);
  mute.close();
  const free = await freePort();
  const absent = await mesh.client(Validator, `https://127.0.0.1:${free}`, { name: "operator" });
  await assert.rejects(absent.announceUpdate({}), { code: "COV_UNAVAILABLE", retryable: true });
});

test("a server that insists on a certificate is answered with a plain sentence", async (t) => {
  const mesh = await TestMesh.create(t);
  const files = await mesh.certificate("gauntlet-validator");
  const [ca, key, cert] = [files.caFile, files.keyFile, files.certFile].map((f) => readFileSync(f));
  const strict = createSecureServer({
    ca: ca!,
    key: key!,
    cert: cert!,
    requestCert: true,
    rejectUnauthorized: true,
  });
  strict.on("sessionError", () => undefined);
  strict.listen(0, "127.0.0.1");
  t.after(() => strict.close());
  await new Promise((resolve) => strict.once("listening", resolve));
  const { port } = strict.address() as AddressInfo;
  const client = await mesh.client(Validator, `https://127.0.0.1:${port}`);
  await assert.rejects(client.announceUpdate({}), {
    code: "COV_UNAUTHENTICATED",
    message: /asks for a client certificate/,
  });
});

test("a call can be cancelled, and the server's handler learns of it", async (t) => {
  const mesh = await TestMesh.create(t);
  const started = Promise.withResolvers<AbortSignal>();
  const { url } = await mesh.serve((router) => {
    router.service(Validator, {
      getRun: (_, context) => {
        started.resolve(context.signal);
        return new Promise(() => undefined);
      },
    });
  });
  const client = await mesh.client(Validator, url, { name: "operator" });
  const stop = new AbortController();
  const call = client.getRun({}, { signal: stop.signal });
  call.catch(() => undefined);
  const signal = await started.promise;
  stop.abort();
  await assert.rejects(call, { code: "COV_CANCELLED" });
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  assert.ok(signal.aborted);
});

test("addresses that are no server's are refused before anything is sent", () => {
  for (const url of ["http://x:1", "x:1", "https://x:1/path", ""]) {
    assert.throws(() => createClient(Validator, { url }), { code: "COV_CONFIG_INVALID" });
  }
  const url = "https://127.0.0.1:1";
  assert.throws(() => createClient(Validator, { url, caFile: "/none" }), {
    code: "COV_FILE_NOT_FOUND",
  });
});

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
