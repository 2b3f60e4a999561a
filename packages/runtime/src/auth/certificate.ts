/** Reads the service name out of a client certificate that TLS has checked. */
import type { TLSSocket } from "node:tls";
import { CovenantError } from "../errors/covenant-error.ts";
import { SERVICE_URI_PREFIX } from "../pki/names.ts";

/**
 * Name of the peer: undefined when it presented no certificate. Throws COV_CERTIFICATE_REJECTED when
 * it presented one that the authority did not sign, that has expired or that names no service.
 */
export function serviceNameOf(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerCertificate();
  if (!certificate || Object.keys(certificate).length === 0) return undefined;
  if (!socket.authorized) {
    const reason = String(socket.authorizationError ?? "not signed by this mesh's authority");
    throw new CovenantError("COV_CERTIFICATE_REJECTED", `Client certificate refused: ${reason}`);
  }
  const name = nameInAlternatives(certificate.subjectaltname ?? "");
  if (name) return name;
  throw new CovenantError(
    "COV_CERTIFICATE_REJECTED",
    `The client certificate names no service (${SERVICE_URI_PREFIX}…)`,
  );
}

/** Node quotes entries that hold separators, so a quoted one never matches this strict form. */
function nameInAlternatives(alternatives: string): string | undefined {
  for (const entry of alternatives.split(", ")) {
    const match = /^URI:covenant:\/\/service\/([a-z0-9][a-z0-9-]{0,62})$/.exec(entry);
    if (match) return match[1];
  }
  return undefined;
}
