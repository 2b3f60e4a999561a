/**
 * Gives a typed detail to errors that the RPC library raises before any interceptor runs: unary
 * bodies that are too large or no protobuf. Without this, garbage would be answered as our fault
 * ("internal"). Works on the response of each protocol; every other response passes untouched.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  errorFromJson,
  errorToJsonBytes,
} from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { toConnectError } from "../errors/convert.ts";

const WEB_TRAILER_FLAG = 0x80;
const FRAME_HEADER_BYTES = 5;
const STATUS = "grpc-status";
const DETAILS = "grpc-status-details-bin";

/** The response with typed errors. */
export async function withTypedError(
  response: UniversalServerResponse,
): Promise<UniversalServerResponse> {
  const type = response.header?.get("content-type") ?? "";
  if (type.startsWith("application/grpc-web")) return { ...response, body: webBody(response.body) };
  if (type.startsWith("application/grpc")) return { ...response, body: grpcBody(response) };
  if (response.status >= 400 && type.startsWith("application/json")) return connectBody(response);
  return response;
}

/** gRPC: the status stands in trailers, complete once the body has been read. */
async function* grpcBody({ body, trailer }: UniversalServerResponse): AsyncGenerator<Uint8Array> {
  if (body) yield* body;
  if (trailer) typeTrailer(trailer);
}

/** gRPC-Web: the trailers are the last frame of the body. */
async function* webBody(body: AsyncIterable<Uint8Array> = noBody()): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    yield chunk[0] === WEB_TRAILER_FLAG ? typedWebTrailer(chunk) : chunk;
  }
}

function typedWebTrailer(frame: Uint8Array): Uint8Array {
  const trailer = new Headers();
  for (const line of new TextDecoder().decode(frame.subarray(FRAME_HEADER_BYTES)).split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) trailer.append(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  if (!typeTrailer(trailer)) return frame;
  const text = [...trailer].map(([key, value]) => `${key}: ${value}\r\n`).join("");
  const data = new TextEncoder().encode(text);
  const typed = new Uint8Array(FRAME_HEADER_BYTES + data.length);
  typed[0] = WEB_TRAILER_FLAG;
  new DataView(typed.buffer).setUint32(1, data.length);
  typed.set(data, FRAME_HEADER_BYTES);
  return typed;
}

function typeTrailer(trailer: Headers): boolean {
  const status = Number(trailer.get(STATUS) ?? "0");
  if (status === 0 || trailer.has(DETAILS)) return false;
  const message = decodeURIComponent(trailer.get("grpc-message") ?? "");
  setTrailerStatus(trailer, toConnectError(new ConnectError(message, status as Code)));
  return true;
}

/** Connect unary: an error is a JSON body with an HTTP status. */
async function connectBody(response: UniversalServerResponse): Promise<UniversalServerResponse> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body ?? noBody()) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  let error: ConnectError;
  try {
    const fallback = new ConnectError("", Code.Unknown);
    error = errorFromJson(JSON.parse(body.toString()), undefined, fallback);
  } catch {
    // Compressed or no Connect error: leave it as it is.
    return { ...response, body: once(body) };
  }
  if (error.details.length > 0) return { ...response, body: once(body) };
  const typed = toConnectError(error);
  const bytes = errorToJsonBytes(typed, undefined);
  response.header?.set("content-length", String(bytes.length));
  return { ...response, status: codeToHttpStatus(typed.code), body: once(bytes) };
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function* noBody(): AsyncGenerator<Uint8Array> {}
