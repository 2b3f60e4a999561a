/** grpc.health.v1: whether the process takes calls. */
import type { ConnectRouter, HandlerContext } from "@connectrpc/connect";
import type { HealthCheckResponse } from "@covenant/contracts/grpc";
import { Health, HealthCheckResponse_ServingStatus as Status } from "@covenant/contracts/grpc";
import { CovenantError } from "../errors/covenant-error.ts";

/** State of health, for the server to change and for the service to report. */
export class HealthState {
  readonly #services = new Set([""]);
  readonly #changed = new EventTarget();
  #serving = false;

  /** Services that may be asked about, beside "" for the whole process. */
  know(serviceNames: Iterable<string>): void {
    for (const name of serviceNames) this.#services.add(name);
  }

  /** Changes the answer for all services. */
  set(serving: boolean): void {
    this.#serving = serving;
    this.#changed.dispatchEvent(new Event("change"));
  }

  /** Status of one service; SERVICE_UNKNOWN when there is none of that name. */
  of(service: string): Status {
    if (!this.#services.has(service)) return Status.SERVICE_UNKNOWN;
    return this.#serving ? Status.SERVING : Status.NOT_SERVING;
  }

  /** Resolves at the next change; rejects when the signal aborts. */
  nextChange(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const options = { once: true, signal };
      this.#changed.addEventListener("change", () => resolve(), options);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      if (signal.aborted) reject(signal.reason);
    });
  }
}

/** Adds the service to a router. */
export function registerHealth(router: ConnectRouter, health: HealthState): void {
  router.service(Health, {
    check: ({ service }) => {
      const status = health.of(service);
      if (status !== Status.SERVICE_UNKNOWN) return { status };
      throw new CovenantError("COV_NOT_FOUND", `No service named "${service}" is served here`);
    },
    watch: ({ service }, context) => watch(health, service, context),
  });
}

async function* watch(
  health: HealthState,
  service: string,
  context: HandlerContext,
): AsyncGenerator<Pick<HealthCheckResponse, "status">> {
  let last: Status | undefined;
  for (;;) {
    const status = health.of(service);
    const changed = health.nextChange(context.signal);
    // A slow reader may be away when the change fails.
    changed.catch(() => undefined);
    if (status !== last) yield { status };
    last = status;
    await changed;
  }
}
