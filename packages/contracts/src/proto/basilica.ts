/** Jobs, nodes, metering and inference. */
export * from "../gen/covenant/basilica/v1/inference_pb.ts";
export * from "../gen/covenant/basilica/v1/jobs_pb.ts";
