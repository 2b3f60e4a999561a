/** Waiting tasks beyond this number are refused: the queue is a bug's symptom, not a buffer. */
const WAITING_MAX = 10_000;

/** Runs tasks one after another, in the order they were given. */
export class Serial {
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** Runs a task when all earlier ones have ended; its result or error goes to its caller alone. */
  run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#waiting >= WAITING_MAX) return Promise.reject(new RangeError("too many tasks"));
    this.#waiting += 1;
    const result = this.#tail.then(task);
    this.#tail = result
      .catch(() => {})
      .finally(() => {
        this.#waiting -= 1;
      });
    return result;
  }
}
