import assert from "node:assert/strict";
import { test } from "node:test";
import type { ConnectRouter } from "@connectrpc/connect";
import { hotkeyFromSeed } from "@covenant/contracts";
import { Identity } from "@covenant/contracts/common";
import { Validator } from "@covenant/contracts/gauntlet";
import { TestMesh } from "../testing.ts";
import { systemClock } from "../time/clock.ts";
import { decodeChallenge, encodeChallenge } from "./challenge.ts";
import { hotkeyOf, principalOf } from "./principal.ts";
import { CHALLENGE_TTL_MS, TOKEN_TTL_MS, TokenIssuer } from "./tokens.ts";

const alice = hotkeyFromSeed(new Uint8Array(32).fill(1));
const bob = hotkeyFromSeed(new Uint8Array(32).fill(2));
const AUTHORITY = "127.0.0.1:1234";

function issuerAt(start = 1_000_000) {
  const time = { nowMs: start };
  const clock = { ...systemClock, nowMs: () => time.nowMs };
  return { time, issuer: new TokenIssuer({ redeemedChallengesMax: 3 }, { clock }) };
}

function redeem(issuer: TokenIssuer): string {
  const { challenge } = issuer.issueChallenge(alice.address, AUTHORITY);
  return issuer.exchange(alice.address, challenge, alice.sign(challenge)).token;
}

test("a signed challenge becomes a token that names its hotkey until it expires", () => {
  const { issuer, time } = issuerAt();
  const token = redeem(issuer);
  assert.equal(issuer.verify(token), alice.address);
  time.nowMs += TOKEN_TTL_MS;
  assert.equal(issuer.verify(token), alice.address);
  time.nowMs += 1;
  assert.throws(() => issuer.verify(token), { code: "COV_TOKEN_INVALID", message: /expired/ });
});

test("a challenge is good once, for its hotkey, at its server, in its minute", () => {
  const { issuer, time } = issuerAt();
  const refused = { code: "COV_CHALLENGE_INVALID" };
  const { challenge } = issuer.issueChallenge(alice.address, AUTHORITY);
  const signature = alice.sign(challenge);
  assert.throws(() => issuer.exchange(alice.address, challenge, bob.sign(challenge)), refused);
  assert.throws(() => issuer.exchange(bob.address, challenge, bob.sign(challenge)), refused);
  const other = issuerAt().issuer;
  assert.throws(() => other.exchange(alice.address, challenge, signature), refused);
  const longer = { ...decodeChallenge(challenge)!, expiresAtMs: Number.MAX_SAFE_INTEGER };
  const forged = encodeChallenge(longer);
  assert.throws(() => issuer.exchange(alice.address, forged, alice.sign(forged)), refused);
  issuer.exchange(alice.address, challenge, signature);
  const again = { ...refused, message: /used before/ };
  assert.throws(() => issuer.exchange(alice.address, challenge, signature), again);
  const late = issuer.issueChallenge(alice.address, AUTHORITY).challenge;
  time.nowMs += CHALLENGE_TTL_MS + 1;
  const expired = { ...refused, message: /expired/ };
  assert.throws(() => issuer.exchange(alice.address, late, alice.sign(late)), expired);
});

test("redeemed challenges are bounded and forgotten when they have expired", () => {
  const { issuer, time } = issuerAt();
  for (let i = 0; i < 3; i++) redeem(issuer);
  assert.throws(() => redeem(issuer), { code: "COV_RESOURCE_EXHAUSTED" });
  time.nowMs += CHALLENGE_TTL_MS + 1;
  redeem(issuer);
});

test("tokens that were touched are refused", () => {
  const { issuer } = issuerAt();
  const token = redeem(issuer);
  const [prefix, , expires, mac] = token.split(".");
  for (const bad of [
    "",
    "cov1",
    `${token}x`,
    `${token}.x`,
    [prefix, bob.address, expires, mac].join("."),
    [prefix, alice.address, `${expires}0`, mac].join("."),
    [prefix, alice.address, expires, ""].join("."),
    "x".repeat(10_000),
  ]) {
    assert.throws(() => issuer.verify(bad), { code: "COV_TOKEN_INVALID" }, bad.slice(0, 80));
  }
});

test("a hotkey that is no address gets no challenge", () => {
  const { issuer } = issuerAt();
  const refused = { code: "COV_INVALID_ARGUMENT", metadata: { field: "hotkey" } };
  assert.throws(() => issuer.issueChallenge("alice", AUTHORITY), refused);
});

test("a client proves its hotkey by itself, once a connection, and again after a restart", async (t) => {
  const mesh = await TestMesh.create(t);
  let exchanges = 0;
  const routes = (router: ConnectRouter) => {
    router.service(Validator, {
      getRound: (_, context) => ({ round: { reason: hotkeyOf(context) } }),
      async *watchRounds(_, context) {
        yield { round: { reason: hotkeyOf(context) } };
      },
    });
  };
  const count = (lines: Record<string, unknown>[]) =>
    lines.filter(({ method }) => String(method).endsWith("ExchangeToken")).length;
  const first = await mesh.serve(routes);
  const client = await mesh.client(Validator, first.url, { hotkey: alice });
  const calls = Array.from({ length: 5 }, () => client.getRound({}));
  for (const { round } of await Promise.all(calls)) assert.equal(round?.reason, alice.address);
  exchanges = count(first.lines);
  assert.equal(exchanges, 1);
  await first.server.drain(0);
  const listen = { host: "127.0.0.1", port: first.port };
  const second = await mesh.serve(routes, { listen });
  for await (const { round } of client.watchRounds({})) assert.equal(round?.reason, alice.address);
  assert.equal(count(second.lines), 1);
});

test("a client signs no challenge of another server", async (t) => {
  const mesh = await TestMesh.create(t);
  const honest = await mesh.serve(() => undefined);
  const relay = await mesh.client(Identity, honest.url);
  // A server in the middle passes on what the honest server issued for its own address.
  const middle = await mesh.serve((router) => {
    router.service(Identity, { issueChallenge: (request) => relay.issueChallenge(request) });
    router.service(Validator, {});
  });
  const victim = await mesh.client(Validator, middle.url, { hotkey: alice });
  await assert.rejects(victim.getRound({}), {
    code: "COV_CHALLENGE_INVALID",
    message: /not its own/,
  });
});

test("a hotkey may be granted further roles, and only then", async (t) => {
  const mesh = await TestMesh.create(t);
  const routes = (router: ConnectRouter) => {
    router.service(Validator, {
      getRound: (_, context) => ({ round: { announced: principalOf(context).roles } }),
    });
  };
  const { url } = await mesh.serve(routes, { roles: { [alice.address]: ["operator"] } });
  const roles = async (hotkey: typeof alice) => {
    const client = await mesh.client(Validator, url, { hotkey });
    return (await client.getRound({})).round?.announced;
  };
  assert.deepEqual(await roles(alice), ["participant", "operator"]);
  assert.deepEqual(await roles(bob), ["participant"]);
});
