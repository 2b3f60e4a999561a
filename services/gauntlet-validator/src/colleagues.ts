import type { Hotkey } from "@covenant/contracts";
import { Validator } from "@covenant/contracts/gauntlet";
import { createClient, fromUnknown } from "@covenant/runtime";
import type { Participants } from "./participants.ts";

/** Verifying a manifest means to fetch and merge its updates again; that takes its time. */
const TIMEOUT_MS = 120_000;
const PROBE_TIMEOUT_MS = 5_000;
/** What a validator that is not there sounds like. */
const SILENCE = new Set<string>(["COV_UNAVAILABLE", "COV_DEADLINE_EXCEEDED", "COV_DRAINING"]);

function connect(url: string, options: { caFile: string; hotkey: Hotkey }) {
  return createClient(Validator, { url, ...options, timeoutMs: TIMEOUT_MS });
}

/** A client of another validator. */
export type ValidatorClient = ReturnType<typeof connect>;

/** The other validators that the ledger lists, as last read, and clients to speak to them. */
export class Colleagues {
  readonly #options: { caFile: string; hotkey: Hotkey };
  readonly #participants: Participants;
  readonly #clients = new Map<string, ValidatorClient>();

  constructor(
    options: { caFile: string; hotkey: Hotkey },
    modules: { participants: Participants },
  ) {
    this.#options = options;
    this.#participants = modules.participants;
  }

  /** All others, the highest stake first. */
  all(): { hotkey: string; client: ValidatorClient }[] {
    return this.#ranked()
      .filter(({ hotkey }) => hotkey !== this.#options.hotkey.address)
      .map(({ hotkey, endpoint }) => {
        return { hotkey, client: this.#client(`https://${endpoint!.host}:${endpoint!.port}`) };
      });
  }

  /**
   * True when it is on this validator to propose a round: no validator with more stake answers. Those without stake never propose. Two
   * that cannot reach each other may both propose; the quorum then decides.
   */
  async isOurTurn(round: number, signal: AbortSignal): Promise<boolean> {
    const ranked = this.#ranked();
    const place = ranked.findIndex(({ hotkey }) => hotkey === this.#options.hotkey.address);
    if (place < 0) return false;
    for (const { endpoint } of ranked.slice(0, place)) {
      const client = this.#client(`https://${endpoint!.host}:${endpoint!.port}`);
      const timeoutMs = PROBE_TIMEOUT_MS;
      try {
        await client.getRound({ round }, { signal, timeoutMs });
        return false;
      } catch (caught) {
        signal.throwIfAborted();
        const { code } = fromUnknown(caught);
        if (!SILENCE.has(code)) return false;
      }
    }
    return true;
  }

  #ranked() {
    return [...this.#participants.validators].sort((a, b) => {
      if (a.stakeRao !== b.stakeRao) return a.stakeRao < b.stakeRao ? 1 : -1;
      return a.hotkey < b.hotkey ? -1 : 1;
    });
  }

  #client(url: string): ValidatorClient {
    const known = this.#clients.get(url);
    if (known !== undefined) return known;
    const client = connect(url, this.#options);
    this.#clients.set(url, client);
    return client;
  }
}
