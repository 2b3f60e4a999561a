/** The Identity service: challenge, signature, short-lived token. */
import type { ConnectRouter } from "@connectrpc/connect";
import { Identity } from "@covenant/contracts/common";
import type { TokenIssuer } from "./tokens.ts";

/** Adds the service to a router. */
export function registerIdentity(router: ConnectRouter, tokens: TokenIssuer): void {
  router.service(Identity, {
    issueChallenge: (request, context) => {
      const authority = new URL(context.url).host;
      const { challenge, expiresAtMs } = tokens.issueChallenge(request.hotkey, authority);
      return { challenge, expiresAtMs: BigInt(expiresAtMs) };
    },
    exchangeToken: ({ hotkey, challenge, signature }) => {
      const { token, expiresAtMs } = tokens.exchange(hotkey, challenge, signature);
      return { token, expiresAtMs: BigInt(expiresAtMs) };
    },
  });
}
