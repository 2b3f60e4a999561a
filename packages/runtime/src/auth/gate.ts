/**
 * The gate every call passes before its body is read: who is it, may they. What it learns stands in
 * the call's context for handlers (`principalOf`).
 */
import type { ContextKey, HandlerContext } from "@connectrpc/connect";
import { createContextKey } from "@connectrpc/connect";
import { CovenantError } from "../errors/covenant-error.ts";
import type { Principal, RoleGrants } from "./principal.ts";
import { makePrincipal, PRINCIPAL_KEY } from "./principal.ts";
import { AUTHORISATION_TABLE, isAllowed } from "./table.ts";
import type { TokenIssuer } from "./tokens.ts";

/** What the connection proved: a name, nothing, or an error to answer the call with. */
export type ConnectionIdentity = { service?: string; error?: CovenantError };

/** Where the adapter leaves what the connection proved. */
export const CONNECTION_KEY: ContextKey<ConnectionIdentity> = createContextKey<ConnectionIdentity>(
  {},
  { description: "covenant.connection" },
);

/** Makes the gate. It throws COV_UNAUTHENTICATED, COV_PERMISSION_DENIED and their kin. */
export function createGate(options: { grants?: RoleGrants }, modules: { tokens: TokenIssuer }) {
  return (context: HandlerContext): void => {
    const method = methodName(context);
    const connection = context.values.get(CONNECTION_KEY);
    if (connection.error) throw connection.error;
    const token = bearerOf(context.requestHeader);
    const hotkey = token === undefined ? undefined : modules.tokens.verify(token);
    const { service } = connection;
    const principal = makePrincipal(
      { ...(service !== undefined && { service }), ...(hotkey !== undefined && { hotkey }) },
      options.grants,
    );
    context.values.set(PRINCIPAL_KEY, principal);
    if (!isAllowed(method, principal.roles)) throw denied(method, principal);
  };
}

/** "package.Service/Method". */
export function methodName(call: { service: { typeName: string }; method: { name: string } }) {
  return `${call.service.typeName}/${call.method.name}`;
}

function bearerOf(headers: Headers): string | undefined {
  const value = headers.get("authorization");
  if (value === null) return undefined;
  const match = /^Bearer ([\x21-\x7e]+)$/i.exec(value);
  if (match) return match[1];
  throw new CovenantError("COV_TOKEN_INVALID", "The authorization header is no bearer token");
}

function denied(method: string, principal: Principal): CovenantError {
  const allowed = AUTHORISATION_TABLE.get(method) ?? [];
  const roles = allowed.length > 0 ? allowed.join(", ") : "nobody";
  const metadata = { method, allowedRoles: roles, callerRoles: principal.roles.join(", ") };
  if (principal.roles.length === 0) {
    return new CovenantError("COV_UNAUTHENTICATED", `${method} needs an identity`, { metadata });
  }
  return new CovenantError(
    "COV_PERMISSION_DENIED",
    `${method} is for ${roles}; the caller is ${principal.roles.join(", ")}`,
    { metadata },
  );
}
