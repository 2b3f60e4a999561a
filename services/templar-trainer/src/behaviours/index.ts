import type { Behaviour } from "./behaviour.ts";
import { copier } from "./copier.ts";
import { honest } from "./honest.ts";
import { noise } from "./noise.ts";

/** Names a configuration may use. */
export const BEHAVIOUR_NAMES = [
  "honest",
  "copier",
  "copier-rescaled",
  "copier-renoised",
  "noise",
] as const;

/** One of the behaviours' names. */
export type BehaviourName = (typeof BEHAVIOUR_NAMES)[number];

/** The behaviour of a name. */
export function behaviourOf(name: BehaviourName): Behaviour {
  switch (name) {
    case "honest":
      return honest;
    case "copier":
      return copier("verbatim");
    case "copier-rescaled":
      return copier("rescaled");
    case "copier-renoised":
      return copier("renoised");
    case "noise":
      return noise;
  }
}
