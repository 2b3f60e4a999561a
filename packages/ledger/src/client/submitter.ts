import { randomBytes } from "node:crypto";
import type { Clock } from "@covenant/runtime";
import { CovenantError } from "@covenant/runtime";
import type { Inclusion } from "../ledger.ts";
import type { Call } from "../state/calls.ts";
import { type Signer, signExtrinsic } from "../state/extrinsic.ts";
import { accountSchema, receiptSchema, statusSchema, WAIT_MS_MAX } from "../wire.ts";
import { moduleError } from "./errors.ts";
import type { RpcClient } from "./rpc-client.ts";

/** Blocks within which an extrinsic must be included; a lost one surely dies after them. */
const PERIOD_BLOCKS = 128;
const SALT_BYTES = 8;
/** Signatures made for one call when another process uses the same key at the same time. */
const SIGNATURES_MAX = 8;
/** The client's deadline lies this much behind the server's, so that its answer can arrive. */
const ANSWER_MARGIN_MS = 1000;

/**
 * Sends extrinsics, one at a time per key. A lost answer is answered by sending the very same
 * extrinsic again: its nonce lets it be included once, and the chain repeats its receipt.
 */
export class Submitter {
  readonly #timeoutMs: number;
  readonly #rpc: RpcClient;
  readonly #clock: Clock;
  /** Last submission of each key; the next one begins when it has ended. */
  readonly #queues = new Map<string, Promise<unknown>>();

  constructor(options: { timeoutMs: number }, modules: { rpc: RpcClient; clock: Clock }) {
    this.#timeoutMs = options.timeoutMs;
    this.#rpc = modules.rpc;
    this.#clock = modules.clock;
  }

  /** Signs a call and returns when it is final; a refusal by the chain is thrown. */
  submit(signer: Signer, call: Call): Promise<Inclusion> {
    const before = this.#queues.get(signer.address) ?? Promise.resolve();
    const done = before.then(() => this.#submitNow(signer, call));
    const settled = done.catch(() => undefined);
    this.#queues.set(signer.address, settled);
    void settled.then(() => {
      if (this.#queues.get(signer.address) === settled) this.#queues.delete(signer.address);
    });
    return done;
  }

  async #submitNow(signer: Signer, call: Call): Promise<Inclusion> {
    const deadlineMs = this.#clock.nowMs() + this.#timeoutMs;
    for (let signature = 1; ; signature++) {
      try {
        return await this.#submitSigned(signer, call, deadlineMs);
      } catch (error) {
        if (signature >= SIGNATURES_MAX || !isNonceConflict(error)) throw error;
      }
    }
  }

  async #submitSigned(signer: Signer, call: Call, deadlineMs: number): Promise<Inclusion> {
    const limits = () => ({ timeoutMs: this.#remainingMs(deadlineMs, call) });
    const status = await this.#rpc.call("chain_status", {}, statusSchema, limits());
    const params = { address: signer.address };
    const account = await this.#rpc.call("account", params, accountSchema, limits());
    const extrinsic = signExtrinsic(
      {
        call,
        nonce: account.nextNonce,
        birthBlock: status.head.number,
        periodBlocks: Math.min(PERIOD_BLOCKS, status.maxEraBlocks),
        salt: randomBytes(SALT_BYTES).toString("hex"),
        genesisHash: status.genesisHash,
      },
      signer,
    );
    const remainingMs = this.#remainingMs(deadlineMs, call);
    const waitMs = Math.max(1, Math.min(WAIT_MS_MAX, remainingMs - ANSWER_MARGIN_MS));
    const receipt = await this.#rpc.call(
      "author_submitAndWait",
      { extrinsic, timeoutMs: waitMs },
      receiptSchema,
      { timeoutMs: remainingMs },
    );
    if (receipt.error !== undefined) throw moduleError(receipt.error, receipt.detail, call.name);
    return { block: receipt.block, index: receipt.index };
  }

  #remainingMs(deadlineMs: number, call: Call): number {
    const remainingMs = Math.floor(deadlineMs - this.#clock.nowMs());
    if (remainingMs > 0) return remainingMs;
    throw new CovenantError("COV_DEADLINE_EXCEEDED", `${call.name} took over its deadline`);
  }
}

/** Somebody else used the nonce first: reading it again and signing anew is safe. */
function isNonceConflict(error: unknown): boolean {
  return (
    error instanceof CovenantError &&
    error.code === "COV_LEDGER_EXTRINSIC_INVALID" &&
    ["stale", "future"].includes(error.metadata.reason ?? "")
  );
}
