export * from "./job.ts";
export * from "./job-reducer.ts";
export * from "./job-spec.ts";
export * from "./metering.ts";
export * from "./placement.ts";
export * from "./queue.ts";
export * from "./resources.ts";
export * from "./restart.ts";
