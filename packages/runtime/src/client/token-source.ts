/** Gets and keeps the bearer token of a hotkey at one server. */
import type { Transport } from "@connectrpc/connect";
import { createClient } from "@connectrpc/connect";
import type { Hotkey } from "@covenant/contracts";
import { Identity } from "@covenant/contracts/common";
import { decodeChallenge } from "../auth/challenge.ts";
import { CovenantError } from "../errors/covenant-error.ts";
import type { Clock } from "../time/clock.ts";
import type { Connection } from "./connection.ts";

const EXCHANGE_TIMEOUT_MS = 10_000;
/** A token is renewed this long before it expires. */
const RENEW_BEFORE_MS = 60_000;

interface HeldToken {
  token: string;
  renewAtMs: number;
  generation: number;
}

/** One token, renewed before it expires, after a refusal, and after the connection was lost. */
export class TokenSource {
  readonly #hotkey: Hotkey;
  readonly #connection: Connection;
  readonly #identity: ReturnType<typeof createClient<typeof Identity>>;
  readonly #clock: Clock;
  #held: HeldToken | undefined;
  #pending: Promise<HeldToken> | undefined;

  constructor(
    options: { hotkey: Hotkey },
    modules: { connection: Connection; transport: Transport; clock: Clock },
  ) {
    this.#hotkey = options.hotkey;
    this.#connection = modules.connection;
    this.#identity = createClient(Identity, modules.transport);
    this.#clock = modules.clock;
  }

  /** A token good for the connection that is open now. */
  async get(): Promise<string> {
    // A restarted server knows no earlier token, and a restart shows as a new connection.
    await this.#connection.manager.connect();
    const held = this.#held;
    const current = held?.generation === this.#connection.generation();
    if (held && current && this.#clock.nowMs() < held.renewAtMs) return held.token;
    this.#pending ??= this.#exchange().finally(() => {
      this.#pending = undefined;
    });
    return (await this.#pending).token;
  }

  /** Forgets a token that the server refused. */
  invalidate(token: string): void {
    if (this.#held?.token === token) this.#held = undefined;
  }

  async #exchange(): Promise<HeldToken> {
    const { address } = this.#hotkey;
    const timeout = { timeoutMs: EXCHANGE_TIMEOUT_MS };
    const { challenge } = await this.#identity.issueChallenge({ hotkey: address }, timeout);
    this.#assertOurs(challenge);
    const signature = this.#hotkey.sign(challenge);
    const answer = await this.#identity.exchangeToken(
      { hotkey: address, challenge, signature },
      timeout,
    );
    const renewAtMs = Number(answer.expiresAtMs) - RENEW_BEFORE_MS;
    const generation = this.#connection.generation();
    this.#held = { token: answer.token, renewAtMs, generation };
    return this.#held;
  }

  /** Signs nothing but a challenge for this hotkey at the server that was dialled. */
  #assertOurs(bytes: Uint8Array): void {
    const challenge = decodeChallenge(bytes);
    const { authority } = this.#connection;
    if (challenge?.authority === authority && challenge.hotkey === this.#hotkey.address) return;
    throw new CovenantError(
      "COV_CHALLENGE_INVALID",
      `${authority} sent a challenge that is not its own`,
      {
        remedy:
          "Check the address; something between may be passing on another server's challenge.",
        metadata: { authority },
      },
    );
  }
}
