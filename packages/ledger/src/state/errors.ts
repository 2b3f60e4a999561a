/**
 * Names of dispatch errors, as Subtensor spells them. An extrinsic that fails with one of these is
 * in a block, its nonce is used, and it has changed nothing else.
 */
export const MODULE_ERRORS = [
  "AccountNotAllowedCommit",
  "AdminActionProhibitedDuringWeightsWindow",
  "BadOrigin",
  "CanNotSetRootNetworkWeights",
  "CommitRevealDisabled",
  "CommitRevealEnabled",
  "CommittingWeightsTooFast",
  "DuplicateUids",
  "ExpiredWeightCommit",
  "FirstEmissionBlockNumberAlreadySet",
  "HotKeyAlreadyRegisteredInSubNet",
  "HotKeyNotRegisteredInSubNet",
  "IncorrectCommitRevealVersion",
  "IncorrectWeightVersionKey",
  "InvalidIpAddress",
  "InvalidPort",
  "InvalidRevealCommitHashNotMatch",
  "InvalidRevealRound",
  "InvalidValue",
  "MaxWeightExceeded",
  "NeedWaitingMoreBlocksToStarCall",
  "NeuronNoValidatorPermit",
  "NoNeuronIdAvailable",
  "NoWeightsCommitFound",
  "NonAssociatedColdKey",
  "NotEnoughBalanceToStake",
  "NotEnoughStakeToSetWeights",
  "NotEnoughStakeToWithdraw",
  "RevealTooEarly",
  "ServingRateLimitExceeded",
  "SettingWeightsTooFast",
  "SpaceLimitExceeded",
  "StakeAmountTooLow",
  "SubNetRegistrationDisabled",
  "SubnetNotExists",
  "SubtokenDisabled",
  "TempoOutOfBounds",
  "TooManyFieldsInCommitmentInfo",
  "TooManyRegistrationsThisBlock",
  "TooManyUnrevealedCommits",
  "UidVecContainInvalidOne",
  "UidsLengthExceedUidsInSubNet",
  "WeightVecLengthIsLow",
  "WeightVecNotEqualSize",
] as const;

/** One of Subtensor's dispatch error names. */
export type ModuleErrorName = (typeof MODULE_ERRORS)[number];

/** Thrown by calls before they change anything; becomes the error of the extrinsic's receipt. */
export class ModuleError extends Error {
  readonly errorName: ModuleErrorName;

  constructor(errorName: ModuleErrorName, detail = "") {
    super(detail === "" ? errorName : `${errorName}: ${detail}`);
    this.name = "ModuleError";
    this.errorName = errorName;
  }
}

/** Why an extrinsic cannot enter a block at all (Subtensor's pool error 1010). */
export type InvalidReason = "ancientBirthBlock" | "badProof" | "call" | "future" | "stale";

/** Thrown for extrinsics that no block may contain; nothing changed, not even the nonce. */
export class InvalidExtrinsicError extends Error {
  readonly reason: InvalidReason;

  constructor(reason: InvalidReason, message: string) {
    super(message);
    this.name = "InvalidExtrinsicError";
    this.reason = reason;
  }
}

/** Throws the named error when the condition does not hold. */
export function ensure(
  condition: boolean,
  errorName: ModuleErrorName,
  detail?: string,
): asserts condition {
  if (!condition) throw new ModuleError(errorName, detail);
}
