/** Rollout contracts, proofs, verdicts, receipts and post-training. */
export * from "../gen/covenant/grail/v1/grail_pb.ts";
export * from "../gen/covenant/grail/v1/proof_pb.ts";
