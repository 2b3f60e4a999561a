import { CovenantError } from "@covenant/runtime";
import { InvalidExtrinsicError, ModuleError } from "../state/errors.ts";
import { RPC_ERRORS } from "../wire.ts";

/** The `error` member of a JSON-RPC response. */
export interface RpcErrorBody {
  code: number;
  message: string;
  data?: { [key: string]: string };
}

/** An error that is meant for the caller. */
export class RpcError extends Error {
  readonly body: RpcErrorBody;

  constructor(code: number, message: string, data?: { [key: string]: string }) {
    super(message);
    this.name = "RpcError";
    this.body = { code, message, ...(data === undefined ? {} : { data }) };
  }
}

/** A named error of the server, as the client's catalogue knows it. */
export function namedError(name: string, message: string): RpcError {
  return new RpcError(RPC_ERRORS.server, message, { name });
}

/** What the caller hears about anything thrown; undefined for faults that are ours. */
export function errorBody(error: unknown): RpcErrorBody | undefined {
  if (error instanceof RpcError) return error.body;
  if (error instanceof ModuleError) {
    return { code: RPC_ERRORS.server, message: error.message, data: { name: error.errorName } };
  }
  if (error instanceof InvalidExtrinsicError) {
    const { message, reason } = error;
    return { code: RPC_ERRORS.invalidTransaction, message, data: { invalid: reason } };
  }
  if (error instanceof CovenantError) {
    const isFull = error.code === "COV_LEDGER_POOL_FULL";
    const code = isFull ? RPC_ERRORS.poolFull : RPC_ERRORS.server;
    const name = isFull ? "PoolFull" : "Unavailable";
    return { code, message: error.message, data: { name } };
  }
  return undefined;
}
