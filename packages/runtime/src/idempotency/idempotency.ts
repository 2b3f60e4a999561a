/** Calls that change state happen once per idempotency key, however often they are sent. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { canonicalBytes, sha256, toHex } from "@covenant/contracts";
import type { Kysely, Transaction } from "kysely";
import type { Migration } from "../database/migrate.ts";
import { CovenantError } from "../errors/covenant-error.ts";
import type { Clock } from "../time/clock.ts";

/** Longest key accepted. */
export const IDEMPOTENCY_KEY_CHARACTERS_MAX = 128;
/** How long a response is kept for repeats. */
export const IDEMPOTENCY_RETENTION_MS = 7 * 86_400_000;

/** The table; put it into the migrations of a service that uses the helper. */
export const IDEMPOTENCY_MIGRATION: Migration = {
  name: "idempotency",
  sql: `CREATE TABLE idempotency (
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    response BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (caller, method, key)
  ) STRICT;
  CREATE INDEX idempotency_age ON idempotency (created_at_ms);`,
};

/** The table's columns. */
export interface IdempotencyTable {
  idempotency: {
    caller: string;
    method: string;
    key: string;
    request_sha256: string;
    response: Uint8Array;
    created_at_ms: number;
  };
}

/** One call. */
export interface IdempotentCall<Input extends DescMessage, Output extends DescMessage> {
  /** Hotkey or service: keys of different callers never meet. */
  caller: string;
  /** "package.Service/Method". */
  method: string;
  key: string;
  input: Input;
  request: MessageShape<Input>;
  output: Output;
}

/**
 * Runs `work` unless this caller used this key for this method before; then the earlier response is
 * returned. `work` gets the transaction in which the response is recorded: what it writes there and
 * the record commit together or not at all. Throws COV_IDEMPOTENCY_CONFLICT when the key was used
 * for another request, COV_INVALID_ARGUMENT for an empty or overlong key.
 */
export async function runOnce<
  Tables extends IdempotencyTable,
  Input extends DescMessage,
  Output extends DescMessage,
>(
  call: IdempotentCall<Input, Output>,
  modules: { database: Kysely<Tables>; clock: Clock },
  work: (transaction: Transaction<Tables>) => Promise<MessageShape<Output>>,
): Promise<MessageShape<Output>> {
  assertKey(call.key);
  const requestHash = toHex(sha256(canonicalBytes(call.input, call.request)));
  const nowMs = modules.clock.nowMs();
  const database = modules.database as unknown as Kysely<IdempotencyTable>;
  return database.transaction().execute(async (transaction) => {
    const { caller, method, key } = call;
    const oldest = nowMs - IDEMPOTENCY_RETENTION_MS;
    await transaction.deleteFrom("idempotency").where("created_at_ms", "<", oldest).execute();
    const earlier = await transaction
      .selectFrom("idempotency")
      .select(["request_sha256", "response"])
      .where("caller", "=", caller)
      .where("method", "=", method)
      .where("key", "=", key)
      .executeTakeFirst();
    if (earlier) {
      if (earlier.request_sha256 !== requestHash) throw conflict(method, key);
      return fromBinary(call.output, new Uint8Array(earlier.response));
    }
    const response = await work(transaction as unknown as Transaction<Tables>);
    const row = {
      caller,
      method,
      key,
      request_sha256: requestHash,
      response: Buffer.from(toBinary(call.output, response)),
      created_at_ms: nowMs,
    };
    await transaction.insertInto("idempotency").values(row).execute();
    return response;
  });
}

function assertKey(key: string): void {
  if (key.length > 0 && key.length <= IDEMPOTENCY_KEY_CHARACTERS_MAX) return;
  throw new CovenantError(
    "COV_INVALID_ARGUMENT",
    `idempotency_key: expected 1 to ${IDEMPOTENCY_KEY_CHARACTERS_MAX} characters`,
    { metadata: { field: "idempotency_key" } },
  );
}

function conflict(method: string, key: string): CovenantError {
  return new CovenantError(
    "COV_IDEMPOTENCY_CONFLICT",
    `Key "${key}" was used for a different ${method} request`,
    { metadata: { method, key } },
  );
}
