/** Runs, sparse updates, and the service of one training peer. */
export * from "../gen/covenant/templar/v1/run_pb.ts";
export * from "../gen/covenant/templar/v1/trainer_pb.ts";
