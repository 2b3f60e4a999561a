import type { Hotkey } from "@covenant/contracts";
import { Validator } from "@covenant/contracts/gauntlet";
import type { Ledger, Neuron } from "@covenant/ledger";
import { CovenantError, createClient } from "@covenant/runtime";

/** Protocol number of a validator's endpoint on the ledger. */
const VALIDATOR_PROTOCOL = 2;
const RPC_TIMEOUT_MS = 30_000;

/** How the peer reaches validators. */
export type ValidatorsOptions = {
  netuid: number;
  hotkey: Hotkey;
  caFile: string;
  /** Asked first, when configured; the ledger's validators are announced to all the same. */
  validatorUrl?: string | undefined;
};

type ValidatorClient = ReturnType<typeof createValidatorClient>;

function createValidatorClient(url: string, options: ValidatorsOptions) {
  const { caFile, hotkey } = options;
  return createClient(Validator, { url, caFile, hotkey, timeoutMs: RPC_TIMEOUT_MS });
}

/** The validators of the subnet as the ledger lists them: their stake, and clients to speak to them. */
export class Validators {
  readonly #options: ValidatorsOptions;
  readonly #ledger: Ledger;
  readonly #clients = new Map<string, ValidatorClient>();
  #neurons: Neuron[] = [];
  #turn = 0;

  constructor(options: ValidatorsOptions, modules: { ledger: Ledger }) {
    this.#options = options;
    this.#ledger = modules.ledger;
  }

  /** Reads the ledger again. */
  async refresh(): Promise<void> {
    const neurons = await this.#ledger.metagraph(this.#options.netuid);
    this.#neurons = neurons.filter(
      (neuron) => neuron.endpoint?.protocol === VALIDATOR_PROTOCOL && neuron.stakeRao > 0n,
    );
  }

  /** Stake of every validator, by hotkey: what a quorum is counted against. */
  get stake(): Map<string, bigint> {
    return new Map(this.#neurons.map((neuron) => [neuron.hotkey, neuron.stakeRao]));
  }

  /** Turns to the next validator: the present one does not answer. */
  rotate(): void {
    this.#turn += 1;
  }

  /** Address of the validator that the peer listens to. */
  get leaderUrl(): string | undefined {
    const { urls } = this;
    return urls[this.#turn % Math.max(1, urls.length)];
  }

  /**
   * The validator whose rounds the peer follows: the configured one, else the one with the highest stake, else the next one. What it says
   * counts only with the signatures of a quorum, so any will do.
   */
  get leader(): ValidatorClient {
    const url = this.leaderUrl;
    if (url === undefined) {
      throw new CovenantError("COV_NO_VALIDATOR", "no validator with stake is on the ledger", {
        remedy: "Start a validator, or set validatorUrl.",
      });
    }
    return this.#client(url);
  }

  /** Every validator by a name that outlives its address, the leader first: hotkeys, and the configured URL. */
  get names(): string[] {
    return [...this.#addresses.keys()];
  }

  /** A client for the named validator at the address that the ledger gives now. Throws COV_NO_VALIDATOR when it has gone. */
  named(name: string): ValidatorClient {
    const url = this.#addresses.get(name);
    if (url === undefined) {
      throw new CovenantError("COV_NO_VALIDATOR", `validator ${name} is no longer on the ledger`);
    }
    return this.#client(url);
  }

  /** Addresses of all validators, the leader's first. */
  get urls(): string[] {
    return [...new Set(this.#addresses.values())];
  }

  get #addresses(): Map<string, string> {
    const addresses = new Map<string, string>();
    const { validatorUrl } = this.#options;
    if (validatorUrl !== undefined) addresses.set(validatorUrl, validatorUrl);
    const ordered = [...this.#neurons].sort((a, b) => (a.stakeRao < b.stakeRao ? 1 : -1));
    for (const { hotkey, endpoint } of ordered) {
      const url = `https://${endpoint!.host}:${endpoint!.port}`;
      if (url !== validatorUrl) addresses.set(hotkey, url);
    }
    return addresses;
  }

  #client(url: string): ValidatorClient {
    const known = this.#clients.get(url);
    if (known !== undefined) return known;
    const client = createValidatorClient(url, this.#options);
    this.#clients.set(url, client);
    return client;
  }
}
