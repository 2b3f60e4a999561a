/** Who is calling. */
import type { ContextKey, HandlerContext } from "@connectrpc/connect";
import { createContextKey } from "@connectrpc/connect";
import { CovenantError } from "../errors/covenant-error.ts";

/** The caller of an RPC, proven by a client certificate, a token, both or neither. */
export interface Principal {
  /** Name in the client certificate. */
  service?: string;
  /** SS58 address proven by challenge and signature. */
  hotkey?: string;
  /** Roles that the authorisation table knows. */
  roles: string[];
}

/** Extra roles by hotkey address or certificate name. */
export type RoleGrants = Readonly<Record<string, readonly string[]>>;

/** Names in certificates that are people's tools and not services. */
const TOOL_NAMES = new Set(["operator", "console"]);

/** A caller without proof of anything. */
export const ANONYMOUS: Principal = { roles: [] };

/** Where the gate leaves the caller for handlers. */
export const PRINCIPAL_KEY: ContextKey<Principal> = createContextKey<Principal>(ANONYMOUS, {
  description: "covenant.principal",
});

/** The caller of the RPC at hand. */
export function principalOf(context: HandlerContext): Principal {
  return context.values.get(PRINCIPAL_KEY);
}

/**
 * The hotkey of the caller; throws COV_UNAUTHENTICATED when it has proven none. For methods that only
 * participants may call.
 */
export function hotkeyOf(context: HandlerContext): string {
  const { hotkey } = principalOf(context);
  if (hotkey) return hotkey;
  throw new CovenantError("COV_UNAUTHENTICATED", "This method needs a hotkey's token", {
    remedy: "Configure a hotkey on the client.",
  });
}

/** Builds the principal from what was proven. */
export function makePrincipal(
  proven: { service?: string; hotkey?: string },
  grants: RoleGrants = {},
): Principal {
  const { service, hotkey } = proven;
  const roles: string[] = [];
  if (service) {
    roles.push(TOOL_NAMES.has(service) ? service : `service:${service}`);
    if (Object.hasOwn(grants, service)) roles.push(...grants[service]!);
  }
  if (hotkey) {
    roles.push("participant");
    if (Object.hasOwn(grants, hotkey)) roles.push(...grants[hotkey]!);
  }
  return { ...(service && { service }), ...(hotkey && { hotkey }), roles };
}

/** How logs and traces name a caller. */
export function describePrincipal(principal: Principal): string {
  return principal.hotkey ?? principal.service ?? "anonymous";
}
