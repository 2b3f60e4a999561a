import { bytesEqual } from "@covenant/contracts";
import type {
  CompleteRequest,
  CompleteResponse,
  GetReceiptResponse,
  Model,
  VerifyReceiptRequest,
  VerifyReceiptResponse,
} from "@covenant/contracts/basilica";
import type { Logger } from "@covenant/runtime";
import { CovenantError, fromUnknown } from "@covenant/runtime";
import type { Replica, ReplicaDirectory } from "./replica-directory.ts";

/** Completions whose replica is remembered, for their receipts. */
const originsMax = 10_000;
const receiptTimeoutMs = 10_000;
const verifyTimeoutMs = 120_000;

interface Modules {
  readonly directory: ReplicaDirectory;
  readonly logger: Logger;
}

/** Sends questions to replicas; another one is tried until the first word of an answer is out. */
export class InferenceRouter {
  readonly #requestTimeoutMs: number;
  readonly #directory: ReplicaDirectory;
  readonly #logger: Logger;
  /** Endpoint by completion id, oldest first. */
  readonly #origins = new Map<string, string>();

  constructor(options: { requestTimeoutMs: number }, modules: Modules) {
    this.#requestTimeoutMs = options.requestTimeoutMs;
    this.#directory = modules.directory;
    this.#logger = modules.logger;
  }

  /** Models served by at least one replica, by id. */
  async models(): Promise<Model[]> {
    const byId = new Map<string, Model>();
    for (const replica of await this.#directory.all()) {
      for (const model of replica.models) byId.set(model.id, model);
    }
    return [...byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Throws COV_MODEL_NOT_FOUND before any replica is asked. */
  async requireModel(id: string): Promise<void> {
    if ((await this.#directory.serving(id)).length === 0) throw modelNotFound(id);
  }

  /** Streams a completion; the signal cancels it at the replica too. */
  async *complete(request: CompleteRequest, signal: AbortSignal): AsyncGenerator<CompleteResponse> {
    const replicas = await this.#directory.serving(request.model);
    if (replicas.length === 0) throw modelNotFound(request.model);
    let failure: CovenantError | undefined;
    for (const replica of replicas) {
      replica.outstanding += 1;
      let begun = false;
      try {
        const call = { signal, timeoutMs: this.#requestTimeoutMs };
        for await (const response of replica.client.complete(request, call)) {
          begun = true;
          if (response.item.case === "summary") {
            this.#remember(response.item.value.completionId, replica.endpoint);
          }
          yield response;
        }
        return;
      } catch (error) {
        failure = fromUnknown(error);
        if (begun || signal.aborted || !failure.retryable) throw failure;
        const { code, message } = failure;
        this.#logger.warn({ endpoint: replica.endpoint, code, message }, "trying another replica");
        if (code !== "COV_BUSY") this.#directory.expire();
      } finally {
        replica.outstanding -= 1;
      }
    }
    throw failure ?? modelNotFound(request.model);
  }

  /** Asks the replica that answered, or else all of them; throws COV_RECEIPT_NOT_FOUND. */
  async receipt(completionId: string, choice: number): Promise<GetReceiptResponse> {
    const origin = this.#origins.get(completionId);
    const replicas = await this.#directory.all();
    const ordered = replicas.sort((a, b) => rank(a, origin) - rank(b, origin));
    for (const replica of ordered) {
      try {
        const call = { timeoutMs: receiptTimeoutMs };
        return await replica.client.getReceipt({ completionId, choice }, call);
      } catch (error) {
        const { code } = fromUnknown(error);
        this.#logger.debug({ endpoint: replica.endpoint, code }, "no receipt here");
      }
    }
    const message = `no replica holds a receipt of ${completionId}, choice ${choice}`;
    throw new CovenantError("COV_RECEIPT_NOT_FOUND", message);
  }

  /** Has a replica of the named checkpoint replay the receipt. */
  async verify(request: VerifyReceiptRequest, signal: AbortSignal): Promise<VerifyReceiptResponse> {
    const root = request.receipt?.commitment?.statement?.checkpointRoot ?? new Uint8Array();
    const replicas = await this.#directory.all();
    const serves = (replica: Replica): boolean =>
      replica.models.some((model) => bytesEqual(model.checkpointRoot, root));
    const replica = replicas.find(serves);
    if (replica === undefined) {
      throw new CovenantError("COV_MODEL_NOT_FOUND", "no replica serves the receipt's checkpoint");
    }
    return replica.client.verifyReceipt(request, { signal, timeoutMs: verifyTimeoutMs });
  }

  #remember(completionId: string, endpoint: string): void {
    this.#origins.set(completionId, endpoint);
    if (this.#origins.size <= originsMax) return;
    const [oldest] = this.#origins.keys();
    if (oldest !== undefined) this.#origins.delete(oldest);
  }
}

function rank(replica: Replica, origin: string | undefined): number {
  return replica.endpoint === origin ? 0 : 1;
}

function modelNotFound(id: string): CovenantError {
  const message =
    id === "" ? "no single model is being served" : `model "${id}" is not being served`;
  return new CovenantError("COV_MODEL_NOT_FOUND", message, { metadata: { model: id } });
}
