import { fromHex, toHex } from "@covenant/contracts";
import { type Clock, CovenantError, systemClock } from "@covenant/runtime";
import { z } from "zod";
import type { Commitment, EmissionState, Ledger, Neuron, Subnet } from "../ledger.ts";
import { randomnessOf } from "../state/apply.ts";
import type { Call } from "../state/calls.ts";
import { weightsCommitHash } from "../state/commit-reveal.ts";
import {
  accountSchema,
  commitmentSchema,
  headSchema,
  metagraphSchema,
  subnetSchema,
  WAIT_MS_MAX,
  weightsSchema,
} from "../wire.ts";
import { RpcClient } from "./rpc-client.ts";
import { Submitter } from "./submitter.ts";
import { toCommitment, toEmission, toNeuron, toSubnet } from "./views.ts";

const TIMEOUT_MS_DEFAULT = 30_000;
/** Blocks tried when more registrations are asked for than one block takes. */
const REGISTRATION_ATTEMPTS = 16;
/** A long poll's answer may arrive this much after the server let it go. */
const POLL_MARGIN_MS = 5000;
const hashSchema = z.object({ block: z.number(), hash: z.string().regex(/^[0-9a-f]{64}$/) });

/**
 * A Ledger on the development chain's process. Nothing is connected until the first call; a chain
 * that restarts is found again within each call's deadline.
 */
export function connectLedger(
  options: { url: string; timeoutMs?: number },
  modules: { clock?: Clock } = {},
): Ledger {
  const clock = modules.clock ?? systemClock;
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS_DEFAULT;
  const rpc = new RpcClient({ url: options.url }, { clock });
  const submitter = new Submitter({ timeoutMs }, { rpc, clock });
  return new RpcLedger({ timeoutMs }, { rpc, submitter });
}

class RpcLedger implements Ledger {
  readonly #timeoutMs: number;
  readonly #rpc: RpcClient;
  readonly #submitter: Submitter;

  constructor(options: { timeoutMs: number }, modules: { rpc: RpcClient; submitter: Submitter }) {
    this.#timeoutMs = options.timeoutMs;
    this.#rpc = modules.rpc;
    this.#submitter = modules.submitter;
  }

  async headBlock(): Promise<number> {
    return (await this.#read("chain_head", {}, headSchema)).number;
  }

  async waitForBlock(block: number, signal?: AbortSignal): Promise<number> {
    for (;;) {
      const head = await this.#rpc.call(
        "chain_waitForBlock",
        { block, timeoutMs: WAIT_MS_MAX },
        headSchema,
        { timeoutMs: WAIT_MS_MAX + POLL_MARGIN_MS, signal },
      );
      if (head.number >= block) return head.number;
    }
  }

  async randomness(block: number): Promise<Uint8Array> {
    const { hash } = await this.#read("chain_blockHash", { block }, hashSchema);
    return randomnessOf(fromHex(hash));
  }

  async ensureRegistered(options: Parameters<Ledger["ensureRegistered"]>[0]): Promise<number> {
    const { netuid, coldkey } = options;
    const hotkey = options.hotkey.address;
    for (let attempt = 1; ; attempt++) {
      const known = await this.#uidOf(netuid, hotkey);
      if (known !== undefined) return known;
      try {
        await this.#submitter.submit(coldkey, {
          name: "burnedRegister",
          args: { netuid, hotkey },
        });
      } catch (error) {
        if (attempt >= REGISTRATION_ATTEMPTS || !isWorthAnotherLook(error)) throw error;
        await this.waitForBlock((await this.headBlock()) + 1);
      }
    }
  }

  addStake(options: Parameters<Ledger["addStake"]>[0]) {
    return this.#stake("addStake", options);
  }

  removeStake(options: Parameters<Ledger["removeStake"]>[0]) {
    return this.#stake("removeStake", options);
  }

  async balance(address: string): Promise<bigint> {
    return BigInt((await this.#read("account", { address }, accountSchema)).balanceRao);
  }

  async metagraph(netuid: number): Promise<Neuron[]> {
    const { neurons } = await this.#read("metagraph", { netuid }, metagraphSchema);
    return neurons.map(toNeuron);
  }

  async serveEndpoint(options: Parameters<Ledger["serveEndpoint"]>[0]): Promise<void> {
    const { netuid, hotkey, host, port, protocol } = options;
    const neurons = await this.metagraph(netuid);
    const served = neurons.find((neuron) => neuron.hotkey === hotkey.address)?.endpoint;
    if (served?.host === host && served.port === port && served.protocol === protocol) return;
    const args = { netuid, version: 1, host, port, protocol };
    await this.#submitter.submit(hotkey, { name: "serveAxon", args });
  }

  setCommitment(options: Parameters<Ledger["setCommitment"]>[0]) {
    const fields = options.fields.map(toHex);
    const args = { netuid: options.netuid, fields };
    return this.#submitter.submit(options.hotkey, { name: "setCommitment", args });
  }

  async commitment(netuid: number, address: string): Promise<Commitment | undefined> {
    const params = { netuid, hotkey: address };
    const found = await this.#read("commitment", params, commitmentSchema.nullable());
    return found === null ? undefined : toCommitment(found);
  }

  async commitments(netuid: number): Promise<Commitment[]> {
    const found = await this.#read("commitments", { netuid }, z.array(commitmentSchema));
    return found.map(toCommitment).sort((a, b) => a.block - b.block || a.index - b.index);
  }

  setWeights(options: Parameters<Ledger["setWeights"]>[0]) {
    const { hotkey, netuid, uids, weights, versionKey } = options;
    const args = { netuid, uids: [...uids], weights: [...weights], versionKey };
    return this.#submitter.submit(hotkey, { name: "setWeights", args });
  }

  commitWeights(options: Parameters<Ledger["commitWeights"]>[0]) {
    const { hotkey, netuid } = options;
    const commitHash = weightsCommitHash(hotkey.address, revealArguments(options));
    const args = { netuid, commitHash };
    return this.#submitter.submit(hotkey, { name: "commitWeights", args });
  }

  revealWeights(options: Parameters<Ledger["revealWeights"]>[0]) {
    const args = revealArguments(options);
    return this.#submitter.submit(options.hotkey, { name: "revealWeights", args });
  }

  async weights(netuid: number): Promise<[number, number][][]> {
    return (await this.#read("weights", { netuid }, weightsSchema)).rows;
  }

  async subnet(netuid: number): Promise<Subnet> {
    return toSubnet(await this.#read("subnet", { netuid }, subnetSchema));
  }

  async emission(netuid: number): Promise<EmissionState> {
    return toEmission(await this.#read("subnet", { netuid }, subnetSchema));
  }

  close(): void {
    this.#rpc.close();
  }

  async #uidOf(netuid: number, hotkey: string): Promise<number | undefined> {
    const neurons = await this.metagraph(netuid);
    return neurons.find((neuron) => neuron.hotkey === hotkey)?.uid;
  }

  #stake(name: "addStake" | "removeStake", options: Parameters<Ledger["addStake"]>[0]) {
    const { coldkey, hotkey, netuid, amountRao } = options;
    const call: Call = { name, args: { netuid, hotkey, amountRao: String(amountRao) } };
    return this.#submitter.submit(coldkey, call);
  }

  #read<Schema extends z.ZodType>(method: string, params: object, schema: Schema) {
    return this.#rpc.call(method, params, schema, { timeoutMs: this.#timeoutMs });
  }
}

function revealArguments(options: Parameters<Ledger["revealWeights"]>[0]) {
  const { netuid, uids, weights, salt, versionKey } = options;
  return { netuid, uids: [...uids], values: [...weights], salt: [...salt], versionKey };
}

/** Somebody registered the same hotkey meanwhile, or the block's places were taken. */
function isWorthAnotherLook(error: unknown): boolean {
  if (!(error instanceof CovenantError)) return false;
  const { name = "" } = error.metadata;
  return ["HotKeyAlreadyRegisteredInSubNet", "TooManyRegistrationsThisBlock"].includes(name);
}
