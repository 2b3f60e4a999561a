/**
 * The text a hotkey signs to get a token. It names the server that the client dialled, so that a
 * server in the middle cannot pass another server's challenge on.
 */

const DOMAIN = "covenant.challenge.v1";

/** What a challenge says. */
export interface Challenge {
  /** "host:port" as the client dialled it, lower case. */
  authority: string;
  hotkey: string;
  /** Unix milliseconds. */
  expiresAtMs: number;
  /** 32 hexadecimal digits. */
  nonce: string;
  /** The server's own proof that it issued the challenge: hexadecimal HMAC-SHA-256 of the rest. */
  mac: string;
}

/** The part that the server's MAC covers. */
export function challengeBody(challenge: Omit<Challenge, "mac">): string {
  const { authority, hotkey, expiresAtMs, nonce } = challenge;
  return [DOMAIN, authority, hotkey, String(expiresAtMs), nonce].join("\n");
}

/** Bytes to sign. */
export function encodeChallenge(challenge: Challenge): Uint8Array {
  return new TextEncoder().encode(`${challengeBody(challenge)}\n${challenge.mac}`);
}

/** Reads a challenge; undefined for anything else. */
export function decodeChallenge(bytes: Uint8Array): Challenge | undefined {
  if (bytes.length > 1024) return undefined;
  const parts = new TextDecoder().decode(bytes).split("\n");
  const [domain, authority, hotkey, expires, nonce, mac] = parts;
  if (parts.length !== 6 || domain !== DOMAIN || !/^\d{1,15}$/.test(expires!)) return undefined;
  if (!/^[0-9a-f]{32}$/.test(nonce!) || !/^[0-9a-f]{64}$/.test(mac!)) return undefined;
  return {
    authority: authority!,
    hotkey: hotkey!,
    expiresAtMs: Number(expires),
    nonce: nonce!,
    mac: mac!,
  };
}
