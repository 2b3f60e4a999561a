import { type Ledger, type Neuron, TRAINER_PROTOCOL, VALIDATOR_PROTOCOL } from "@covenant/ledger";

/** The subnet as last read from the ledger. */
export class Participants {
  readonly #options: { netuid: number };
  readonly #ledger: Ledger;
  #byHotkey = new Map<string, Neuron>();

  constructor(options: { netuid: number }, modules: { ledger: Ledger }) {
    this.#options = options;
    this.#ledger = modules.ledger;
  }

  /** Reads the ledger again. */
  async refresh(): Promise<void> {
    const neurons = await this.#ledger.metagraph(this.#options.netuid);
    this.#byHotkey = new Map(neurons.map((neuron) => [neuron.hotkey, neuron]));
  }

  /** A registered participant, or undefined. */
  neuron(hotkey: string): Neuron | undefined {
    return this.#byHotkey.get(hotkey);
  }

  /** Hotkeys that serve a trainer. */
  get trainers(): string[] {
    return [...this.#byHotkey.values()]
      .filter(({ endpoint }) => endpoint?.protocol === TRAINER_PROTOCOL)
      .map(({ hotkey }) => hotkey);
  }

  /** Validators: who serves one and holds stake. */
  get validators(): Neuron[] {
    return [...this.#byHotkey.values()].filter(
      ({ endpoint, stakeRao }) => endpoint?.protocol === VALIDATOR_PROTOCOL && stakeRao > 0n,
    );
  }

  /** Their stake by hotkey: what a quorum is counted against. */
  get validatorStake(): Map<string, bigint> {
    return new Map(this.validators.map(({ hotkey, stakeRao }) => [hotkey, stakeRao]));
  }
}
