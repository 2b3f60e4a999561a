/** Rounds, verdicts, scores, and the validator's service. */
export * from "../gen/covenant/gauntlet/v1/validator_pb.ts";
