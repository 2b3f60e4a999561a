import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { invalidRequest, OpenAiError } from "./errors.ts";

/**
 * What is read of a body beyond its limit, and thrown away: most clients look for the answer only
 * when they have sent everything.
 */
const discardedBytesMax = 64 * 1024 * 1024;

/** Reads and parses a JSON body; throws 413, 415 or 400 in OpenAI's shape. */
export async function readJsonBody(request: IncomingMessage, bytesMax: number): Promise<unknown> {
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/json\b/i.test(type)) {
    throw new OpenAiError(415, "the content type must be application/json");
  }
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= bytesMax) chunks.push(chunk);
    if (size > bytesMax + discardedBytesMax) break;
  }
  if (size > bytesMax) throw new OpenAiError(413, `the body is larger than ${bytesMax} bytes`);
  const text = new TextDecoder("utf-8", { fatal: true });
  try {
    return JSON.parse(text.decode(Buffer.concat(chunks)));
  } catch {
    throw invalidRequest("the body is not valid JSON");
  }
}

/** Sends a JSON answer. */
export function sendJson(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent || response.destroyed) return;
  const text = JSON.stringify(body);
  response.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}

/** Sends an error; on a stream that has begun, as its last event. */
export function sendError(response: ServerResponse, error: OpenAiError): void {
  if (response.destroyed) return;
  if (response.headersSent) {
    response.end(`data: ${JSON.stringify(error.body())}\n\n`);
    return;
  }
  const { retryAfterSeconds } = error;
  if (retryAfterSeconds !== undefined) response.setHeader("retry-after", String(retryAfterSeconds));
  // What is left of a refused body is not read.
  if (error.status === 413) response.setHeader("connection", "close");
  sendJson(response, error.status, error.body());
}

/** Server-sent events with back-pressure: a slow reader slows the writer. */
export class EventStream {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    });
  }

  async send(event: object | "[DONE]"): Promise<void> {
    const data = typeof event === "string" ? event : JSON.stringify(event);
    if (this.#response.destroyed || this.#response.write(`data: ${data}\n\n`)) return;
    await Promise.race([once(this.#response, "drain"), once(this.#response, "close")]);
  }

  end(): void {
    this.#response.end();
  }
}

/** Aborts when the client goes away before the answer is complete. */
export function clientSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.once("close", () => {
    if (!response.writableFinished) controller.abort(new Error("the client disconnected"));
  });
  return controller.signal;
}
