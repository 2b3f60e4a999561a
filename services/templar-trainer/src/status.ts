import { create } from "@bufbuild/protobuf";
import { PeerPhase, type PeerStatus, PeerStatusSchema } from "@covenant/contracts/templar";

/** Watchers beyond this number are refused, so that a leak in a client cannot exhaust the trainer. */
const WATCHERS_MAX = 64;

/** The peer's present state, and who wants to hear about changes. */
export class StatusBoard {
  #status: PeerStatus;
  readonly #wakers = new Set<() => void>();

  constructor(identity: { hotkey: string; runId: string }) {
    this.#status = create(PeerStatusSchema, { ...identity, phase: PeerPhase.STARTING });
  }

  /** A snapshot; it does not change afterwards. */
  get current(): PeerStatus {
    return this.#status;
  }

  /** Changes some fields and wakes the watchers. */
  update(change: Partial<Omit<PeerStatus, "$typeName" | "$unknown">>): void {
    this.#status = create(PeerStatusSchema, { ...this.#status, ...change });
    for (const wake of this.#wakers) wake();
  }

  /** The current status, then the newest one after every change; a slow watcher skips intermediate ones. */
  async *watch(signal: AbortSignal): AsyncGenerator<PeerStatus> {
    if (this.#wakers.size >= WATCHERS_MAX) throw new RangeError("too many watchers");
    let wake: () => void = () => {};
    let changed = Promise.resolve();
    const arm = () => {
      changed = new Promise((resolve) => {
        wake = resolve;
      });
    };
    const onChange = () => wake();
    this.#wakers.add(onChange);
    signal.addEventListener("abort", onChange);
    try {
      while (!signal.aborted) {
        arm();
        yield this.#status;
        await changed;
      }
    } finally {
      this.#wakers.delete(onChange);
      signal.removeEventListener("abort", onChange);
    }
  }
}
