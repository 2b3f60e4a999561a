import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "@covenant/contracts/common";
import type { ErrorCode, ErrorEntry } from "./catalogue.ts";
import { CATALOGUE, STATUS_CODES } from "./catalogue.ts";
import { GENERAL_CODES } from "./codes/general.ts";
import { KERNELS_CODES } from "./codes/kernels.ts";
import { LEDGER_CODES } from "./codes/ledger.ts";
import { PLACEMENT_CODES } from "./codes/placement.ts";
import { STORAGE_CODES } from "./codes/storage.ts";
import { TRAINING_CODES } from "./codes/training.ts";
import { fromUnknown, toConnectError } from "./convert.ts";
import { CovenantError, hasCode } from "./covenant-error.ts";
import { errorReference } from "./reference.ts";

const ENTRIES = Object.entries<ErrorEntry>(CATALOGUE);

test("codes are in order and every entry says what to do", () => {
  const groups = [
    GENERAL_CODES,
    KERNELS_CODES,
    LEDGER_CODES,
    PLACEMENT_CODES,
    STORAGE_CODES,
    TRAINING_CODES,
  ].map((group) => Object.keys(group));
  for (const codes of groups) assert.deepEqual(codes, codes.toSorted());
  assert.equal(groups.flat().length, ENTRIES.length, "No code stands in two files");
  for (const [code, { meaning, remedy }] of ENTRIES) {
    assert.match(code, /^COV_[A-Z0-9]+(_[A-Z0-9]+)*$/);
    assert.match(meaning, /^\S.*[^.]$/, `${code}: a meaning is a clause without a full stop`);
    assert.match(remedy, /^\S.*\.$/, `${code}: a remedy is a sentence`);
  }
});

test("the reference page is the catalogue's", async () => {
  const page = new URL("../../../../docs/reference/errors.md", import.meta.url);
  const command = "node packages/runtime/scripts/error-docs.ts";
  assert.equal(await readFile(page, "utf8"), errorReference(), `Run ${command}`);
});

test("statuses are those of gRPC", () => {
  for (const [name, code] of Object.entries(STATUS_CODES)) {
    assert.equal(name, Code[code]!.replace(/(?!^)([A-Z])/g, "_$1").toLowerCase());
  }
});

test("every code crosses the wire with remedy, class and facts", () => {
  for (const [code, entry] of ENTRIES) {
    const sent = new CovenantError(code as ErrorCode, "what happened", {
      remedy: "Do this.",
      metadata: { limit: 5n, path: "a" },
    });
    const wire = toConnectError(sent);
    assert.equal(wire.code, STATUS_CODES[entry.status]);
    const { message, value } = { message: wire.rawMessage, value: wire.details };
    const received = new ConnectError(message, wire.code);
    received.details = value.map((detail) => toIncoming(detail));
    const error = fromUnknown(received);
    const { code: gotCode, remedy, retryable, status, metadata } = error;
    assert.deepEqual(
      { gotCode, remedy, retryable, status, metadata, message: error.message },
      {
        gotCode: code,
        remedy: "Do this.",
        retryable: entry.retryable,
        status: entry.status,
        metadata: { limit: "5", path: "a" },
        message: "what happened",
      },
    );
  }
});

test("a code that this release does not know is kept", () => {
  const detail = { code: "COV_FROM_THE_FUTURE", remedy: "Wait.", retryable: true };
  const wire = new ConnectError("later", Code.NotFound);
  wire.details = [toIncoming({ desc: ErrorDetailSchema, value: detail })];
  const error = fromUnknown(wire);
  assert.equal(error.code as string, "COV_FROM_THE_FUTURE");
  assert.equal(error.status, "not_found");
  assert.equal(error.remedy, "Wait.");
  assert.equal(error.retryable, true);
});

test("the text of a fault stays in the process, with its cause", () => {
  const fault = new TypeError("cannot read /home/me/secret");
  const wire = toConnectError(fault);
  assert.equal(wire.code, Code.Internal);
  assert.ok(!wire.message.includes("secret"));
  assert.equal(fromUnknown(fault).cause, fault);
});

test("foreign errors get the code of what they mean", () => {
  const node = (code: string) => Object.assign(new Error(`connect ${code}`), { code });
  const cases: [unknown, ErrorCode][] = [
    [node("ECONNREFUSED"), "COV_UNAVAILABLE"],
    [
      new ConnectError("x", Code.Aborted, undefined, undefined, node("ECONNRESET")),
      "COV_UNAVAILABLE",
    ],
    [node("ERR_TLS_CERT_ALTNAME_INVALID"), "COV_SERVER_NOT_TRUSTED"],
    [new Error("tlsv13 alert certificate required"), "COV_UNAUTHENTICATED"],
    [new ConnectError("x", Code.Unimplemented), "COV_UNIMPLEMENTED"],
    [new DOMException("stop", "AbortError"), "COV_CANCELLED"],
    [Object.assign(new Error("full"), { code: "COV_DISK_FULL" }), "COV_DISK_FULL"],
    [Object.assign(new Error("full"), { code: "SQLITE_FULL" }), "COV_DISK_FULL"],
    [Object.assign(new Error("bug"), { code: "ERR_INVALID_ARG_TYPE" }), "COV_INTERNAL"],
    ["just text", "COV_INTERNAL"],
  ];
  for (const [reason, code] of cases) assert.equal(fromUnknown(reason).code, code);
});

test("errors are recognised by brand and code", () => {
  const error = new CovenantError("COV_NOT_FOUND", "gone");
  assert.ok(error instanceof CovenantError && error instanceof Error);
  assert.ok(hasCode(error, "COV_NOT_FOUND") && !hasCode(error, "COV_INTERNAL"));
  assert.ok(!((new Error("gone") as unknown) instanceof CovenantError));
  assert.equal(fromUnknown(error), error);
});

function toIncoming(detail: ConnectError["details"][number]) {
  if (!("desc" in detail)) return detail;
  const message = create(detail.desc, detail.value);
  return { type: detail.desc.typeName, value: toBinary(detail.desc, message) };
}
