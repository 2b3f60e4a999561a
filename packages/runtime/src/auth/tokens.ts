/**
 * Challenges and bearer tokens of one server process. Both are proven by a secret that lives as long
 * as the process, so issuing costs no memory; only challenges that were redeemed with a valid
 * signature are remembered, until they expire.
 */
import { createHmac, randomBytes } from "node:crypto";
import { bytesEqual, fromHex, ss58Decode, verifySignature } from "@covenant/contracts";
import { CovenantError } from "../errors/covenant-error.ts";
import type { Clock } from "../time/clock.ts";
import { challengeBody, decodeChallenge, encodeChallenge } from "./challenge.ts";

/** How long a challenge can be redeemed. */
export const CHALLENGE_TTL_MS = 60_000;
/** How long a token is good. */
export const TOKEN_TTL_MS = 600_000;
/** Redeemed challenges remembered at once; beyond it new exchanges wait. */
export const REDEEMED_CHALLENGES_MAX = 65_536;

const PREFIX = "cov1";

/** Issues challenges and tokens, and checks them. */
export class TokenIssuer {
  readonly #secret = randomBytes(32);
  readonly #clock: Clock;
  readonly #redeemedMax: number;
  /** Nonce → expiry, in order of redemption. */
  readonly #redeemed = new Map<string, number>();

  constructor(options: { redeemedChallengesMax?: number }, modules: { clock: Clock }) {
    this.#redeemedMax = options.redeemedChallengesMax ?? REDEEMED_CHALLENGES_MAX;
    this.#clock = modules.clock;
  }

  /** A challenge for a hotkey that dialled `authority`. Throws COV_INVALID_ARGUMENT. */
  issueChallenge(
    hotkey: string,
    authority: string,
  ): { challenge: Uint8Array; expiresAtMs: number } {
    try {
      ss58Decode(hotkey);
    } catch (error) {
      throw new CovenantError("COV_INVALID_ARGUMENT", "hotkey: not an SS58 address", {
        metadata: { field: "hotkey" },
        cause: error,
      });
    }
    const expiresAtMs = this.#clock.nowMs() + CHALLENGE_TTL_MS;
    const nonce = randomBytes(16).toString("hex");
    const body = { authority: authority.toLowerCase(), hotkey, expiresAtMs, nonce };
    const mac = this.#mac("challenge", challengeBody(body)).toString("hex");
    return { challenge: encodeChallenge({ ...body, mac }), expiresAtMs };
  }

  /** Redeems a signed challenge, once. Throws COV_CHALLENGE_INVALID. */
  exchange(
    hotkey: string,
    challengeBytes: Uint8Array,
    signature: Uint8Array,
  ): { token: string; expiresAtMs: number } {
    const challenge = decodeChallenge(challengeBytes);
    if (!challenge) throw invalid("it is not one of this server");
    const expected = this.#mac("challenge", challengeBody(challenge));
    if (!bytesEqual(expected, fromHex(challenge.mac)))
      throw invalid("it is not one of this server");
    if (challenge.hotkey !== hotkey) throw invalid("it was issued to another hotkey");
    const nowMs = this.#clock.nowMs();
    if (nowMs > challenge.expiresAtMs) throw invalid("it has expired");
    if (this.#redeemed.has(challenge.nonce)) throw invalid("it was used before");
    if (!verifySignature(hotkey, challengeBytes, signature))
      throw invalid("the signature is wrong");
    this.#remember(challenge.nonce, challenge.expiresAtMs, nowMs);
    return this.#token(hotkey, nowMs + TOKEN_TTL_MS);
  }

  /** The hotkey that a token was issued to. Throws COV_TOKEN_INVALID. */
  verify(token: string): string {
    const [prefix, hotkey, expires, mac, ...rest] = token.split(".");
    if (prefix !== PREFIX || !hotkey || !expires || !mac || rest.length > 0 || token.length > 256) {
      throw new CovenantError("COV_TOKEN_INVALID", "The bearer token is malformed");
    }
    const given = Buffer.from(mac, "base64url");
    if (!bytesEqual(given, this.#mac("token", `${hotkey}.${expires}`))) {
      throw new CovenantError("COV_TOKEN_INVALID", "The bearer token is not one of this server");
    }
    if (this.#clock.nowMs() > Number(expires)) {
      throw new CovenantError("COV_TOKEN_INVALID", "The bearer token has expired");
    }
    return hotkey;
  }

  #token(hotkey: string, expiresAtMs: number): { token: string; expiresAtMs: number } {
    const body = `${hotkey}.${expiresAtMs}`;
    const mac = this.#mac("token", body).toString("base64url");
    return { token: `${PREFIX}.${body}.${mac}`, expiresAtMs };
  }

  #remember(nonce: string, expiresAtMs: number, nowMs: number): void {
    for (const [known, expires] of this.#redeemed) {
      if (expires >= nowMs) break;
      this.#redeemed.delete(known);
    }
    if (this.#redeemed.size >= this.#redeemedMax) {
      throw new CovenantError("COV_RESOURCE_EXHAUSTED", "Too many token exchanges at once", {
        metadata: { redeemedChallengesMax: this.#redeemedMax },
      });
    }
    this.#redeemed.set(nonce, expiresAtMs);
  }

  #mac(purpose: string, text: string): Buffer {
    return createHmac("sha256", this.#secret).update(`${purpose}\n${text}`).digest();
  }
}

function invalid(reason: string): CovenantError {
  return new CovenantError("COV_CHALLENGE_INVALID", `The challenge is refused: ${reason}`);
}
