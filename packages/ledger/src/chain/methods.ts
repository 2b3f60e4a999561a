import { toHex } from "@covenant/contracts";
import { z } from "zod";
import { subnetOf } from "../state/context.ts";
import { parseExtrinsic } from "../state/extrinsic.ts";
import { stateHash } from "../state/invariants.ts";
import { RPC_ERRORS, WAIT_MS_MAX } from "../wire.ts";
import type { ChainNode } from "./node.ts";
import { namedError, RpcError } from "./rpc-error.ts";
import { issuanceView, metagraphView, subnetView } from "./views.ts";

/** Most blocks that one call may ask for. */
const PRODUCE_MAX = 10_000;

const whole = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const netuid = z.number().int().min(0).max(65_535);
const address = z.string().min(1).max(64);
const timeoutMs = z.number().int().min(0).max(WAIT_MS_MAX).default(WAIT_MS_MAX);
const nothing = z.strictObject({}).default({});

/** A JSON-RPC method: its parameters by name, and what it does with them. */
interface Method {
  run(params: unknown, signal: AbortSignal): Promise<unknown>;
}

function method<Schema extends z.ZodType>(
  params: Schema,
  handle: (params: z.output<Schema>, signal: AbortSignal) => unknown,
): Method {
  return {
    run: async (value, signal) => {
      const parsed = params.safeParse(value);
      if (!parsed.success) {
        const issue = parsed.error.issues[0]!;
        const place = issue.path.join(".") || "params";
        throw new RpcError(RPC_ERRORS.invalidParams, `${place}: ${issue.message}`);
      }
      return handle(parsed.data, signal);
    },
  };
}

/** What the methods need to know besides the node. */
export interface MethodOptions {
  name: string;
  specVersion: number;
  blockTimeMs: number;
  /** Whether `dev_produceBlocks` exists. */
  allowProduce: boolean;
}

/** All methods by name. */
export function createMethods(
  options: MethodOptions,
  modules: { node: ChainNode },
): ReadonlyMap<string, Method> {
  const { node } = modules;
  const methods = new Map([
    ...chainMethods(options, node),
    ...extrinsicMethods(node),
    ...subnetMethods(node),
  ]);
  if (options.allowProduce) {
    const params = z.strictObject({ count: z.number().int().min(1).max(PRODUCE_MAX).default(1) });
    methods.set(
      "dev_produceBlocks",
      method(params.default({ count: 1 }), ({ count }) => node.produce(count)),
    );
  }
  return methods;
}

function chainMethods(options: MethodOptions, node: ChainNode): [string, Method][] {
  const { specVersion, name, blockTimeMs } = options;
  return [
    [
      "chain_status",
      method(nothing, () => ({
        specName: "covenant-development-chain",
        specVersion,
        name,
        genesisHash: node.state.genesisHash,
        blockTimeMs,
        maxEraBlocks: node.state.parameters.maxEraBlocks,
        head: node.head,
      })),
    ],
    ["chain_head", method(nothing, () => node.head)],
    [
      "chain_waitForBlock",
      method(z.strictObject({ block: whole, timeoutMs }), (params, signal) =>
        node.waitForBlock(
          params.block,
          AbortSignal.any([signal, AbortSignal.timeout(params.timeoutMs)]),
        ),
      ),
    ],
    [
      "chain_blockHash",
      method(z.strictObject({ block: whole }), async ({ block }) => {
        const hash = await node.blockHash(block);
        if (hash === undefined) throw namedError("BlockNotFinal", `head is ${node.head.number}`);
        return { block, hash: toHex(hash) };
      }),
    ],
    [
      "chain_events",
      method(z.strictObject({ block: whole }), ({ block }) => {
        const events = node.eventsOf(block);
        if (events === undefined) {
          throw namedError("EventsUnknown", "only recent blocks' events are kept");
        }
        return { block, events: JSON.parse(JSON.stringify(events, bigintText)) };
      }),
    ],
    ["chain_issuance", method(nothing, () => issuanceView(node.state))],
    [
      "chain_stateHash",
      method(nothing, () => ({ block: node.head.number, stateHash: stateHash(node.state) })),
    ],
  ];
}

function extrinsicMethods(node: ChainNode): [string, Method][] {
  return [
    [
      "account",
      method(z.strictObject({ address }), (params) => {
        const account = node.state.accounts.get(params.address);
        return {
          balanceRao: String(account?.balanceRao ?? 0n),
          nonce: account?.nonce ?? 0,
          nextNonce: node.nextNonce(params.address),
        };
      }),
    ],
    [
      "author_submitAndWait",
      method(z.strictObject({ extrinsic: z.unknown(), timeoutMs }), (params, signal) => {
        const receipt = node.submit(parseExtrinsic(params.extrinsic));
        return withDeadline(receipt, params.timeoutMs, signal);
      }),
    ],
  ];
}

function subnetMethods(node: ChainNode): [string, Method][] {
  const bySubnet = z.strictObject({ netuid });
  return [
    ["subnet", method(bySubnet, (params) => subnetView(node.state, params.netuid))],
    ["metagraph", method(bySubnet, (params) => metagraphView(node.state, params.netuid))],
    [
      "weights",
      method(bySubnet, (params) => ({
        rows: subnetOf(node.state, params.netuid).neurons.map(({ weights }) => weights),
      })),
    ],
    [
      "commitment",
      method(z.strictObject({ netuid, hotkey: address }), (params) => {
        const { hotkey } = params;
        const commitment = subnetOf(node.state, params.netuid).commitments.get(hotkey);
        return commitment === undefined ? null : { hotkey, ...commitment };
      }),
    ],
    [
      "commitments",
      method(bySubnet, (params) =>
        [...subnetOf(node.state, params.netuid).commitments].map(([hotkey, commitment]) => ({
          hotkey,
          ...commitment,
        })),
      ),
    ],
  ];
}

function bigintText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

async function withDeadline<Value>(
  promise: Promise<Value>,
  limitMs: number,
  signal: AbortSignal,
): Promise<Value> {
  const expired = Promise.withResolvers<never>();
  const onAbort = (): void =>
    expired.reject(namedError("DeadlineExceeded", "the extrinsic still waits for a block"));
  const timer = setTimeout(onAbort, limitMs);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, expired.promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}
