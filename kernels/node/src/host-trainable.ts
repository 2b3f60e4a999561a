import { callKernel } from "./errors.ts";
import { numberOf, Trainable } from "./trainable.ts";
import type { BufferName } from "./types.ts";

/** What computes on the CPU: its buffers can be looked at and written in place. */
export abstract class HostTrainable extends Trainable {
  readonly #views = new Map<BufferName, Float32Array>();

  /**
   * Live view of the parameters: what is written here is what the next call uses. Not to be touched while a call is
   * under way. A view stays valid after its owner is given up for as long as it is referenced.
   */
  get parameters(): Float32Array {
    return this.#view("parameters");
  }

  /** Live view like {@link parameters}; allocated on first use, which waits for the call under way. */
  get gradients(): Float32Array {
    return this.#view("gradients");
  }

  /** Live view like {@link gradients}. */
  get firstMoment(): Float32Array {
    return this.#view("firstMoment");
  }

  /** Live view like {@link gradients}. */
  get secondMoment(): Float32Array {
    return this.#view("secondMoment");
  }

  /** Forgets the views, so that their memory can go. */
  protected dropViews(): void {
    this.#views.clear();
  }

  #view(buffer: BufferName): Float32Array {
    const known = this.#views.get(buffer);
    if (known) return known;
    const view = callKernel(() => this.native.view(numberOf(buffer)));
    this.#views.set(buffer, view);
    return view;
  }
}
