/** Messages every domain shares, the identity exchange and the span store. */
export * from "../gen/covenant/common/v1/common_pb.ts";
export * from "../gen/covenant/common/v1/identity_pb.ts";
export * from "../gen/covenant/common/v1/telemetry_pb.ts";
