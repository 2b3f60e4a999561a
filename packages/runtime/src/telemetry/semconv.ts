/**
 * Names of span attributes after OpenTelemetry's semantic conventions. They are still marked as
 * developing upstream, so they are written down here once and not imported.
 */

/** Always "connect_rpc"; the transport's own protocol is below it. */
export const RPC_SYSTEM = "rpc.system.name";
/** Full name of the method: covenant.gauntlet.v1.Validator/GetRound. */
export const RPC_METHOD = "rpc.method";
/** Status in capitals, as gRPC writes it: OK, NOT_FOUND. */
export const RPC_STATUS = "rpc.response.status_code";
/** Host the client dialled. */
export const SERVER_ADDRESS = "server.address";
/** Port the client dialled. */
export const SERVER_PORT = "server.port";
/** Stable code of a failure: the catalogue's. */
export const ERROR_TYPE = "error.type";
/** Who called, as `service:x`, a hotkey's address or `anonymous`. */
export const CALLER = "covenant.caller";
