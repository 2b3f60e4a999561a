/**
 * Every error code of the mesh. A code is stable for ever: programs match on it. To add one, add an
 * entry in alphabetical order to the file of its domain in codes/ and run
 * `node packages/runtime/scripts/error-docs.ts` (a test compares the page). The remedy is what a user
 * reads when the thrower gives none: one sentence, imperative.
 */
import { GENERAL_CODES } from "./codes/general.ts";
import { KERNELS_CODES } from "./codes/kernels.ts";
import { LEDGER_CODES } from "./codes/ledger.ts";
import { PLACEMENT_CODES } from "./codes/placement.ts";
import { STORAGE_CODES } from "./codes/storage.ts";
import { TRAINING_CODES } from "./codes/training.ts";

export type { ErrorEntry, StatusName } from "./entry.ts";
export { STATUS_CODES } from "./entry.ts";

/** The catalogue, by code. */
export const CATALOGUE = {
  ...GENERAL_CODES,
  ...KERNELS_CODES,
  ...LEDGER_CODES,
  ...PLACEMENT_CODES,
  ...STORAGE_CODES,
  ...TRAINING_CODES,
} as const;

/** A code of the catalogue. */
export type ErrorCode = keyof typeof CATALOGUE;
