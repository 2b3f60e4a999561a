import assert from "node:assert/strict";
import { test } from "node:test";
import type { DescService } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { hotkeyFromSeed } from "@covenant/contracts";
import * as basilica from "@covenant/contracts/basilica";
import * as common from "@covenant/contracts/common";
import * as gauntlet from "@covenant/contracts/gauntlet";
import * as grail from "@covenant/contracts/grail";
import * as grpc from "@covenant/contracts/grpc";
import * as registry from "@covenant/contracts/registry";
import * as templar from "@covenant/contracts/templar";
import { CovenantError } from "../errors/covenant-error.ts";
import { TestMesh } from "../testing.ts";
import type { Role } from "./table.ts";
import { AUTHORISATION_TABLE, isAllowed } from "./table.ts";

const SERVICES = [basilica, common, gauntlet, grail, grpc, registry, templar]
  .flatMap((module) => Object.values(module))
  .filter((value) => typeof value === "object" && value.kind === "service") as DescService[];

/** Served by every server already. */
const BUILT_IN = new Set([
  "covenant.common.v1.Identity",
  "covenant.common.v1.Telemetry",
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
]);

const SERVICE_NAMES = [
  "basilica-scheduler",
  "checkpoint-registry",
  "gauntlet-validator",
  "grail-rl",
  "templar-trainer",
  "stranger",
];

const ROLES: readonly Role[] = [
  "anyone",
  "participant",
  "operator",
  "console",
  ...SERVICE_NAMES.map((name) => `service:${name}` as const),
];

test("the table has every method of the protocol and no other", () => {
  const methods = SERVICES.flatMap(({ typeName, methods }) =>
    methods.map(({ name }) => `${typeName}/${name}`),
  );
  assert.deepEqual([...AUTHORISATION_TABLE.keys()].sort(), methods.sort());
});

test("what is not in the table is nobody's", () => {
  assert.ok(!isAllowed("covenant.gauntlet.v1.Validator/NoSuchMethod", ["operator", "anyone"]));
  assert.ok(!isAllowed("__proto__/constructor", ["operator"]));
});

test("participants and the console can change nothing of the operator's", () => {
  const operatorOnly = [...AUTHORISATION_TABLE]
    .filter(([, roles]) => roles.includes("operator") && roles.length === 1)
    .map(([method]) => method.split("/")[1]);
  for (const method of ["SubmitJob", "CancelJob", "Pause", "Resume", "Drain", "Pin", "Prune"]) {
    assert.ok(operatorOnly.includes(method), `${method} is the operator's alone`);
  }
  const consoles = [...AUTHORISATION_TABLE].filter(([, roles]) => roles.includes("console"));
  for (const [method] of consoles) {
    assert.match(method, /\/(Complete|Explain|Get|List|Stream|Verify|Watch)/, `${method} reads`);
  }
});

test("every role meets every method over real TLS exactly as the table says", async (t) => {
  const mesh = await TestMesh.create(t);
  const own = SERVICES.filter(({ typeName }) => !BUILT_IN.has(typeName));
  const { url } = await mesh.serve((router) => {
    // Nothing is implemented: a call that passes the gate is answered with "unimplemented".
    for (const service of own) router.service(service, {});
  });
  const hotkey = hotkeyFromSeed(new Uint8Array(32).fill(1));
  for (const role of ROLES) {
    const name = role.replace("service:", "");
    const anonymous = role === "anyone" || role === "participant";
    const identity = anonymous ? (role === "participant" ? { hotkey } : {}) : { name };
    for (const service of SERVICES) {
      const client = await mesh.client(service, url, identity);
      for (const method of service.methods) {
        const fullName = `${service.typeName}/${method.name}`;
        const allowed = isAllowed(fullName, role === "anyone" ? [] : [role]);
        const code = await outcome(client, method.localName, method.methodKind);
        const denied = role === "anyone" ? "COV_UNAUTHENTICATED" : "COV_PERMISSION_DENIED";
        const what = `${role} calls ${fullName}: ${code}`;
        if (!allowed) assert.equal(code, denied, what);
        else if (BUILT_IN.has(service.typeName)) assert.notEqual(code, denied, what);
        else assert.equal(code, "COV_UNIMPLEMENTED", what);
      }
    }
  }
});

/** Code of the error with which a call with an empty request ends, or "ok". */
async function outcome(client: Client<DescService>, method: string, kind: string): Promise<string> {
  const call = (client as Record<string, (input: unknown, options: object) => unknown>)[method]!;
  const input = kind === "unary" || kind === "server_streaming" ? {} : noMessages();
  const stop = new AbortController();
  try {
    const answer = call(input, { signal: stop.signal });
    if (kind === "unary" || kind === "client_streaming") await answer;
    else for await (const _ of answer as AsyncIterable<unknown>) break;
    return "ok";
  } catch (error) {
    assert.ok(error instanceof CovenantError, String(error));
    return error.code;
  } finally {
    stop.abort();
  }
}

async function* noMessages(): AsyncGenerator<never> {}
