import { Agent, request as httpRequest } from "node:http";
import { CovenantError } from "@covenant/runtime";

/** Largest answer: the metagraph of a full subnet with room to spare. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024;
/** Open connections per client; long polls hold theirs. */
const SOCKETS_MAX = 64;

/** An HTTP answer, whole. */
export interface HttpAnswer {
  status: number;
  headers: { readonly [name: string]: string | string[] | undefined };
  body: string;
}

/** Posts JSON over connections that stay open between calls. */
export class HttpPoster {
  readonly #url: URL;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: SOCKETS_MAX });

  constructor(url: string) {
    this.#url = new URL(url);
  }

  /**
   * Sends one request; `signal` ends it at any time.
   * @throws COV_LEDGER_UNAVAILABLE for everything that can happen to a connection
   */
  post(body: string, headers: Record<string, string>, signal: AbortSignal): Promise<HttpAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
    const fail = (cause: unknown): void => reject(this.#unavailable(cause));
    const request = httpRequest(
      this.#url,
      {
        method: "POST",
        agent: this.#agent,
        signal,
        headers: {
          ...headers,
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
        },
      },
      (response) => {
        const parts: Buffer[] = [];
        let bytes = 0;
        response.on("data", (part: Buffer) => {
          bytes += part.length;
          if (bytes > ANSWER_BYTES_MAX) response.destroy(new Error("answer too large"));
          else parts.push(part);
        });
        response.once("error", fail);
        response.once("aborted", () => fail(new Error("connection closed within an answer")));
        response.once("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(parts).toString("utf8"),
          }),
        );
      },
    );
    request.once("error", fail);
    request.end(body);
    return promise;
  }

  /** Closes idle connections; calls under way are ended by their signals. */
  close(): void {
    this.#agent.destroy();
  }

  #unavailable(cause: unknown): CovenantError {
    const { host } = this.#url;
    return new CovenantError("COV_LEDGER_UNAVAILABLE", `no answer from the ledger at ${host}`, {
      cause,
      metadata: { url: this.#url.href },
    });
  }
}
