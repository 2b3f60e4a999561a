/**
 * The chain as the mesh needs it: the `Ledger` interface, a client for the development chain, errors and
 * configuration. The tests that every implementation passes are in `@covenant/ledger/contract`.
 */
export { type ChainConfig, chainConfigSchema } from "./chain/config.ts";
export { connectLedger } from "./client/connect.ts";
export type {
  Commitment,
  EmissionState,
  Inclusion,
  Ledger,
  Neuron,
  NeuronEndpoint,
  Subnet,
  WeightVector,
} from "./ledger.ts";
export { TRAINER_PROTOCOL, VALIDATOR_PROTOCOL } from "./ledger.ts";
export { MODULE_ERRORS, type ModuleErrorName } from "./state/errors.ts";
export type { Hyperparameters } from "./state/hyperparameters.ts";
